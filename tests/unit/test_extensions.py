"""What other packages plug in is found by its name; what is at fault there harms nothing else."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from broker import (
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    Offer,
    Payload,
    TympanError,
    catalogue,
    extensions,
)
from broker.async_ui import AsyncUIRequest
from broker.errors import ExtensionInvalid, InvalidType, PayloadInvalid
from broker.extensions import Extensions
from broker.notification import model_of
from broker.notification_type import (
    ALIASES,
    ASYNC_UI,
    PRINTER_CONFIGURATION,
    SAMPLE_UI,
    describe_type,
    parse_type,
)
from broker.printer_configuration import PrinterConfiguration
from tests.extensions import GUID, OTHER_GUID, TONER, Site
from tests.farm import Farm
from workers import bridge

TYPE = UUID(GUID)
SOUND = "toner = toner_pack:Toner"
BRIDGE = """
import click

class Bridge:
    description = "Bridges nothing."
    options = (click.Option(["--queue"]),)

    async def run(self, broker, server, *, queue):
        pass
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site on the path, and an unread catalogue; nothing of Tympan's own."""
    monkeypatch.syspath_prepend(tmp_path)
    installed = extensions._distributions
    monkeypatch.setattr(
        *(extensions, "_distributions"),
        lambda group: [one for one in installed(group) if one.name != extensions.OWN],
    )
    fresh = Extensions(catalogue.GROUP, catalogue._fit)
    monkeypatch.setattr(catalogue, "installed_types", fresh)
    monkeypatch.setattr(bridge, "bridges", Extensions(bridge.GROUP, bridge._fit))
    made = Site(tmp_path)
    yield made
    made.forget()


# What is sound -----------------------------------------------------------------------------------


def test_an_alias_of_an_extension_is_a_type(site: Site) -> None:
    site.install("toner-pack", TONER, types=SOUND)
    assert parse_type("toner") == parse_type(" TONER\n") == TYPE
    assert describe_type(TYPE) == "toner"
    model = catalogue.model_for(TYPE)
    assert model is not None
    assert catalogue.types()["toner"] is model
    assert catalogue.find("toner") is model
    assert model.response_model is not None, "the response model comes with it"
    assert catalogue.faults() == ()


def test_an_alias_stands_for_its_model_and_a_guid_for_bytes(site: Site) -> None:
    site.install("toner-pack", TONER, types=SOUND)
    assert model_of("toner") == (TYPE, catalogue.types()["toner"])
    assert model_of(GUID) == model_of(TYPE) == (TYPE, None)


def test_a_type_that_nobody_plugs_in_has_no_model(site: Site) -> None:
    site.install("toner-pack", TONER, types=SOUND)
    assert catalogue.model_for(UUID(OTHER_GUID)) is None
    assert catalogue.find("drum") is None
    assert describe_type(UUID(OTHER_GUID)) == OTHER_GUID
    with pytest.raises(InvalidType, match=r"known: asyncui, .*sample-ui, .*toner\)"):
        parse_type("drum")


def test_the_first_on_the_path_is_the_package_in_use(site: Site) -> None:
    site.install("toner-pack", TONER, types=SOUND)
    older = site.folder / "older"
    older.mkdir()
    Site(older).install("toner-pack", "", types="old = toner_pack:Nothing")
    sys.path.append(str(older))
    try:
        assert parse_type("toner") == TYPE
        assert catalogue.faults() == ()
    finally:
        sys.path.remove(str(older))


async def test_registering_by_an_alias_validates_by_its_model(site: Site, farm: Farm) -> None:
    site.install("toner-pack", TONER, types=SOUND)
    toner = catalogue.types()["toner"]
    broker = await farm.broker("alice")
    registration = await broker.register(r"\\print01\laser-3", "toner", style=BIDIRECTIONAL)
    channel = await broker.open_channel(r"\\print01\laser-3", "toner", style=BIDIRECTIONAL)
    await channel.send('{"colour": "black"}')
    offer = await registration.fetch(10)
    assert isinstance(offer, Offer)
    assert offer.payload == toner.model_validate({"colour": "black"})
    await offer.respond('{"order": "perhaps"}')
    response = await channel.response(10)
    with pytest.raises(PayloadInvalid, match="no Reply: order"):
        _ = response.payload


@pytest.mark.parametrize(
    ("alias", "guid", "model"),
    [
        ("asyncui", ASYNC_UI, AsyncUIRequest),
        ("printer-configuration", PRINTER_CONFIGURATION, PrinterConfiguration),
    ],
)
def test_models_of_our_own_are_in_the_catalogue(
    alias: str, guid: UUID, model: type[Payload]
) -> None:
    assert catalogue.types()[alias] is catalogue.model_for(guid) is model
    assert model_of(f" {alias.upper()}") == (guid, model)


def test_an_alias_may_be_of_a_type_without_a_model() -> None:
    assert catalogue.find("sample-ui") is None
    assert model_of("sample-ui") == (SAMPLE_UI, None)


# When it is read ---------------------------------------------------------------------------------


def test_guids_and_aliases_of_our_own_load_nothing(site: Site) -> None:
    site.install("toner-pack", TONER, types=SOUND)
    known_without: list[str | UUID] = [*ALIASES, GUID, f"{{{GUID}}}", TYPE]
    for known in known_without:
        parse_type(known)
        model_of(known)
    describe_type(ASYNC_UI)
    assert site.imported == set()
    parse_type("toner")
    assert site.imported == {"toner_pack"}


def test_importing_the_package_loads_nothing(site: Site) -> None:
    site.install("toner-pack", "raise SystemExit(7)", types="toner = toner_pack:Toner")
    done = subprocess.run(
        [sys.executable, "-c", "import broker, workers.cli"],
        env={"PYTHONPATH": str(site.folder)},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0


def test_a_group_is_read_once(site: Site) -> None:
    site.install("toner-pack", TONER, types=SOUND)
    parse_type("toner")
    site.install("drum-pack", TONER, types="drum = drum_pack:Toner")
    with pytest.raises(InvalidType):
        parse_type("drum")


def test_threads_that_ask_at_once_get_one_answer(site: Site) -> None:
    site.install("toner-pack", f"import time\ntime.sleep(0.1)\n{TONER}", types=SOUND)
    at_once = threading.Barrier(8)
    found: list[object] = []

    def ask() -> None:
        at_once.wait()
        found.append(catalogue.find("toner"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is not None
    assert all(one is found[0] for one in found)
    assert len(found) == 8


def test_a_thread_that_imports_an_extension_does_not_wait_for_one_that_reads(site: Site) -> None:
    """The import holds the module's lock and asks; whoever reads waits for the module's lock."""
    site.install("toner-pack", TONER, types=SOUND)
    site.install(
        "drum-pack",
        f"""
        import drum_gate
        from broker import Payload
        from broker.notification_type import parse_type

        drum_gate.importing.set()
        assert drum_gate.go_on.wait(30)
        TONER = parse_type("toner")

        class Drum(Payload, type="{OTHER_GUID}"):
            pass
        """,
        types="drum = drum_pack:Drum",
    )
    site.install(
        "drum-gate", "import threading\nimporting = threading.Event()\ngo_on = threading.Event()"
    )
    gate = importlib.import_module("drum_gate")
    importer = threading.Thread(target=importlib.import_module, args=("drum_pack",))
    reader = threading.Thread(target=catalogue.types)
    importer.start()
    assert gate.importing.wait(30)
    reader.start()
    gate.go_on.set()
    importer.join(30)
    reader.join(30)
    assert not importer.is_alive()
    assert not reader.is_alive()
    assert sys.modules["drum_pack"].TONER == TYPE, "another package's alias is known meanwhile"
    assert set(catalogue.types()) >= {"toner", "drum"}
    assert catalogue.faults() == ()


# What is at fault --------------------------------------------------------------------------------

FAULTS = {
    "module that is missing": (
        "",
        "broken = broken_pack:Model",
        "loading it raised ModuleNotFoundError: No module named 'broken_pack'",
    ),
    "module that cannot be imported": (
        "raise RuntimeError('no\\nluck')",
        "broken = broken_pack:Model",
        "loading it raised RuntimeError: no luck",
    ),
    "module that ends the process": (
        "raise SystemExit(7)",
        "broken = broken_pack:Model",
        "loading it raised SystemExit: 7",
    ),
    "module that names its type by its own alias": (
        "from broker import Payload\nclass Model(Payload, type='broken'):\n    pass",
        "broken = broken_pack:Model",
        "'broken' is no GUID and no known type",
    ),
    "reserved type": (
        f"from broker import Payload\nclass Model(Payload, type='{NOTIFICATION_RELEASE}'): pass",
        "broken = broken_pack:Model",
        "reserved",
    ),
    "missing object": ("", "broken = json:Model", "AttributeError"),
    "no object": ("", "broken = json", "names no object"),
    "no class": ("", "broken = json:dumps", "no class derived from broker.Payload"),
    "no model": ("", "broken = json:JSONDecoder", "no class derived from broker.Payload"),
    "model without a type": ("", "broken = broker:Payload", "names no type"),
    "alias of our own": (TONER, "sample-ui = broken_pack:Toner", "a type of Tympan itself"),
    "alias that is a GUID": (TONER, f"{OTHER_GUID} = broken_pack:Toner", "is a GUID"),
    "alias that nobody can type": (TONER, "Toner! = broken_pack:Toner", "lower-case letters"),
    "type of our own": (
        "from broker import Payload\nclass Model(Payload, type='port-monitor'):\n    pass",
        "broken = broken_pack:Model",
        "25df3b0e-74a9-47f5-80ce-79b4b1eb5c58 is a type of Tympan itself",
    ),
}


@pytest.mark.parametrize(("code", "point", "says"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_told_and_harms_nothing_else(
    site: Site, code: str, point: str, says: str
) -> None:
    site.install("broken-pack", code, types=point)
    site.install("toner-pack", TONER.replace(GUID, OTHER_GUID), types=SOUND)
    assert parse_type("toner") == UUID(OTHER_GUID)
    assert set(catalogue.types()) - set(ALIASES) == {"toner"}
    (fault,) = catalogue.faults()
    message = str(fault.error())
    assert says in message
    name, _, value = point.partition(" = ")
    for part in (name, value, "tympan.types", "broken-pack 1.0"):
        assert part in message, "it says which entry point of which package"
    assert "\n" not in message
    assert message.count("; ") >= 1, "it says what to do"
    for guid in ALIASES.values():
        assert describe_type(guid) in ALIASES, "known types keep their names"


def test_an_extension_at_fault_is_raised_where_it_is_asked_for(site: Site) -> None:
    site.install("broken-pack", "import nowhere_at_all", types="broken = broken_pack:Model")
    with pytest.raises(InvalidType):
        parse_type("something-else")
    for _ in range(2):
        with pytest.raises(ExtensionInvalid, match="nowhere_at_all") as caught:
            parse_type("Broken")
        error = caught.value
        assert isinstance(error, TympanError)
        assert (error.distribution, error.extension) == ("broken-pack 1.0", "broken")
        assert isinstance(error.__cause__, ModuleNotFoundError), "its author sees where"
        assert (error.result.name, error.result.hresult) == ("EXTENSION_INVALID", 0x80070482)
    with pytest.raises(ExtensionInvalid):
        model_of("broken")


def test_of_two_packages_with_one_alias_the_first_by_name_has_it(site: Site) -> None:
    site.install("b-pack", TONER, types="toner = b_pack:Toner")
    site.install("a-pack", TONER.replace(GUID, OTHER_GUID), types="toner = a_pack:Toner")
    assert parse_type("toner") == UUID(OTHER_GUID)
    (fault,) = catalogue.faults()
    assert fault.point.distribution == "b-pack 1.0"
    assert "'toner' is taken by a-pack 1.0" in str(fault.error())


def test_of_two_packages_with_one_type_the_first_by_name_has_it(site: Site) -> None:
    site.install("b-pack", TONER, types="drum = b_pack:Toner")
    site.install("a-pack", TONER, types="toner = a_pack:Toner")
    assert describe_type(TYPE) == "toner"
    with pytest.raises(ExtensionInvalid, match=f"{GUID} is the type of 'toner' of a-pack 1.0"):
        parse_type("drum")


def test_damaged_metadata_harms_its_own_package_only(site: Site) -> None:
    site.install("a-pack", TONER, rest="[tympan.types]\nno sense\n")
    site.install("nothing-of-ours", "", rest="[console_scripts]\nno sense\n")
    site.describe("left-over", {"entry_points.txt": "[tympan.types]\nx = y:z\n"})
    site.install("toner-pack", TONER, types=SOUND)
    assert parse_type("toner") == TYPE
    (fault,) = catalogue.faults()
    assert "entry_points.txt cannot be read" in str(fault.error())
    assert "a-pack 1.0" in str(fault.error())


# Bridges -----------------------------------------------------------------------------------------


def test_a_bridge_is_found_by_its_name(site: Site) -> None:
    site.install("cups-pack", BRIDGE, bridges="cups = cups_pack:Bridge")
    found = bridge.bridges.get("cups")
    assert found is not None
    assert found.description == "Bridges nothing."
    assert bridge.bridges.get("ipp") is None
    assert catalogue.faults() == ()


def test_what_comes_with_tympan_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(bridge, "bridges", Extensions(bridge.GROUP, bridge._fit))
    site = Site(tmp_path)
    site.install("a-pack", BRIDGE, bridges="cups = a_pack:Bridge")
    assert bridge.bridges.sound()["cups"].point.is_own
    (fault,) = bridge.bridges.faults()
    assert "the name 'cups' is taken by tympan" in str(fault.error())
    site.forget()


def test_a_bridge_may_inherit_from_the_protocol(site: Site) -> None:
    site.install(
        "cups-pack",
        """
        from workers import bridge

        class Bridge(bridge.Bridge):
            description = "Bridges nothing."

            async def run(self, broker, server):
                pass
        """,
        bridges="cups = cups_pack:Bridge",
    )
    found = bridge.bridges.get("cups")
    assert found is not None
    assert list(found.options) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("class Bridge:", "def Bridge():\n    pass\nclass Other:", "names no class"),
        ('"Bridges nothing."', "None", "description is no line"),
        ('"Bridges nothing."', r'"two\nlines"', "description is no line"),
        ("async def", "def", "run is no coroutine function"),
        ("run(", "walk(", "run is no coroutine function"),
        ("click.Option(", "str(", "options are no click parameters"),
        ("]),)", "]))", "options are no click parameters"),
        ("--queue", "--json", "--json is one of `tympan bridge run`"),
        ("--queue", "--broker", "broker is one of `tympan bridge run`"),
        ("    description", "    def __init__(self, x): pass\n    description", "TypeError"),
    ],
)
def test_a_class_that_is_no_bridge_is_at_fault(site: Site, old: str, new: str, says: str) -> None:
    assert old in BRIDGE
    site.install("cups-pack", BRIDGE.replace(old, new), bridges="cups = cups_pack:Bridge")
    assert dict(bridge.bridges.sound()) == {}
    with pytest.raises(ExtensionInvalid, match=says):
        bridge.bridges.get("cups")
