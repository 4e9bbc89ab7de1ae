"""Settings of the broker, as the environment and ``--set`` give them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from broker import Settings
from broker.errors import InvalidSettings

PREFIX = "TYMPAN_SET_"
"""Before a setting's name, in capitals: ``TYMPAN_SET_LEASE=5``."""


def settings_of(given: Mapping[str, Any], **usual: Any) -> Settings:
    """What is given, else what the environment says, else what is usual here.

    Raises InvalidSettings, which names the variable where one is off.
    """
    said = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(PREFIX)
    }
    if not said:
        return Settings.of(**{**usual, **given})
    try:
        Settings.of(**said)
    except InvalidSettings as error:
        names = ", ".join(f"{PREFIX}{name.upper()}" for name in said)
        raise InvalidSettings(f"{error} (the environment has {names})") from None
    return Settings.of(**{**usual, **said, **given})
