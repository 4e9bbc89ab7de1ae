"""The catalogue: which model gives meaning to the payloads of which notification type.

Two models come with Tympan; other packages add theirs by entry points of the group
``tympan.types``: the name is the alias of a type, the value a :class:`broker.Payload` model with
that type. One entry is one model; its response model comes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from broker.extensions import Extension, Extensions, Fault, Unfit
from broker.notification_type import ALIASES, NOTIFICATION_RELEASE, as_guid

if TYPE_CHECKING:
    from broker.payload import Payload

GROUP = "tympan.types"


def types() -> Mapping[str, type[Payload]]:
    """All models that can be used, by the alias of their type."""
    own = {alias: model for alias in ALIASES if (model := _own(alias))}
    return own | {alias: found.loaded for alias, found in installed_types.sound().items()}


def find(alias: str) -> type[Payload] | None:
    """The model of an alias, which is in lower case; None without one.

    Raises ExtensionInvalid where an extension of this name cannot be used.
    """
    return _own(alias) if alias in ALIASES else installed_types.get(alias)


def model_for(guid: UUID) -> type[Payload] | None:
    """The model of a type; None where nothing that can be used knows it."""
    return next((model for model in types().values() if model.notification_type == guid), None)


def aliases() -> list[str]:
    """All aliases: Tympan's own, and those of extensions that can be used."""
    return [*ALIASES, *installed_types.sound()]


def alias_of(guid: UUID) -> str | None:
    """The alias that an extension gives to this type; None where none does."""
    found = installed_types.sound().items()
    return next((alias for alias, one in found if one.loaded.notification_type == guid), None)


def faults() -> tuple[Fault, ...]:
    """Installed types that cannot be used. Asking for one by its alias raises ExtensionInvalid."""
    return installed_types.faults()


def _own(alias: str) -> type[Payload] | None:
    """The models that come with Tympan; whoever does not use them need not load them."""
    match alias:
        case "asyncui":
            from broker.async_ui import AsyncUIRequest

            return AsyncUIRequest
        case "printer-configuration":
            from broker.printer_configuration import PrinterConfiguration

            return PrinterConfiguration
    return None


def _fit(alias: str, loaded: Any, taken: Mapping[str, Extension[type[Payload]]]) -> type[Payload]:
    from broker.payload import Payload

    if alias in ALIASES or as_guid(alias):
        raise Unfit(
            f"{alias!r} is {'a type of Tympan itself' if alias in ALIASES else 'a GUID'}",
            "give the entry point another name",
        )
    if not isinstance(loaded, type) or not issubclass(loaded, Payload):
        raise Unfit("it names no class derived from broker.Payload", "name the model of the type")
    guid = getattr(loaded, "notification_type", None)
    if not isinstance(guid, UUID) or guid == NOTIFICATION_RELEASE:
        kind = loaded.__name__
        raise Unfit(f"{kind} names no type", f"write class {kind}(Payload, type='<GUID>')")
    if guid in ALIASES.values():
        raise Unfit(f"{guid} is a type of Tympan itself", "choose a GUID of its own")
    for name, other in taken.items():
        if other.loaded.notification_type == guid:
            raise Unfit(
                f"{guid} is the type of {name!r} of {other.point.distribution}",
                "choose a GUID of its own, or uninstall one of the two",
            )
    return loaded


installed_types = Extensions(GROUP, _fit)
