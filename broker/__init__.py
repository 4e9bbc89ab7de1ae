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
from broker.observer import Observer
from broker.offer import Offer
from broker.pool import PoolFacts, Subscription
from broker.pooled_offer import PooledOffer
from broker.registration import Registration
from broker.replica import Delivery, Replica, ReplicaListener
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
