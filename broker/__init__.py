"""Tympan: print notification channels for whole farms, on Redis."""

from importlib import import_module
from typing import TYPE_CHECKING

from broker import errors
from broker.broker import Broker
from broker.callback import Callback
from broker.channel import Channel
from broker.conversation import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Style,
    UserFilter,
)
from broker.errors import TympanError
from broker.farm import FarmRegistration
from broker.names import Name
from broker.notification import Closing, Data, Notification, Response
from broker.notification_type import NOTIFICATION_RELEASE
from broker.observer import Observer
from broker.offer import Offer
from broker.pool import PoolFacts, Subscription
from broker.pooled_offer import PooledOffer
from broker.registration import Registration
from broker.replica import Delivery, Replica, ReplicaListener
from broker.results import Code, Result
from broker.rights import Right, RightsSource

if TYPE_CHECKING:
    from broker.payload import Payload
    from broker.settings import Durability, Role, Settings

__all__ = [
    "ALL_USERS",
    "BIDIRECTIONAL",
    "NOTIFICATION_RELEASE",
    "PER_USER",
    "UNIDIRECTIONAL",
    "Broker",
    "Callback",
    "Channel",
    "Closing",
    "Code",
    "Data",
    "Delivery",
    "Durability",
    "FarmRegistration",
    "Name",
    "Notification",
    "Observer",
    "Offer",
    "Payload",
    "PoolFacts",
    "PooledOffer",
    "Registration",
    "Replica",
    "ReplicaListener",
    "Response",
    "Result",
    "Right",
    "RightsSource",
    "Role",
    "Settings",
    "Style",
    "Subscription",
    "TympanError",
    "UserFilter",
    "errors",
]

_HOMES = {
    "Durability": "broker.settings",
    "Payload": "broker.payload",
    "Role": "broker.settings",
    "Settings": "broker.settings",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        """Imported when asked for: pydantic takes longer to import than all the rest."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__():
        return sorted({*globals(), *__all__})
