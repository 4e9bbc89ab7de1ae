"""Tympan: print notification channels for whole farms, on Redis."""

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
from broker.notification import Closing, Data, Notification, Payload, Response
from broker.notification_type import NOTIFICATION_RELEASE
from broker.offer import Offer
from broker.registration import Registration
from broker.results import Code, Result
from broker.rights import Right, RightsSource
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
    "Durability",
    "FarmRegistration",
    "Name",
    "Notification",
    "Offer",
    "Payload",
    "Registration",
    "Response",
    "Result",
    "Right",
    "RightsSource",
    "Role",
    "Settings",
    "Style",
    "TympanError",
    "UserFilter",
    "errors",
]
