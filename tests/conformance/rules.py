"""The rules of print notification: what conforming means, and how a test names what it shows.

A test carries the numbers of its rules::

    @rule(17)
    async def test_all_users_on_a_printer_is_denied_without_rights(farm: Farm) -> None: ...

Parametrised rows may carry their own: ``pytest.param(..., marks=rule(43))``. A result counts for
the backend that the test ran on; a test without the ``backend`` parameter counts for all of them,
unless it names the one that it holds for: ``@rule(1, on="redis")``.
"""

from __future__ import annotations

import pytest

SECTIONS: dict[str, dict[int, str]] = {
    "Creation and roles": {
        1: "Only a source opens channels: a listener's attempt is refused and leaves none.",
        2: "A channel belongs to a printer or to a server.",
        3: "A channel can be opened while nobody is registered.",
        4: "Type, user filter and style are chosen once, when the channel is created.",
        5: "Style 0 is bidirectional, style 1 is unidirectional.",
        6: "User filter 0 is per user, user filter 1 is all users.",
        7: "The channel beyond the limit fails: MAX_CHANNEL_COUNT_EXCEEDED; it uses up nothing.",
        8: "Opening a channel object that is open fails: CHANNEL_ALREADY_OPENED.",
        9: "A channel for all users is refused to whom does not administer that name.",
        10: "A callback given for a unidirectional channel is never called.",
        11: "A bidirectional channel needs no callback: responses are taken, nobody is told.",
        12: "A listener has a handle only once it is notified on it: it never speaks first.",
    },
    "Registration": {
        13: "Registering for callbacks without a callback is rejected.",
        14: "A registration keeps the user who registered, whoever the client is later.",
        15: "Registering works with and without a channel to hear.",
        16: "Applications and components that open channels can both register.",
        17: "All users on a printer: access denied without administer rights on that printer.",
        18: "All users without a name: access denied without administer rights on the server.",
        19: "Administering one printer admits to all users there, and not on another printer.",
        20: "A name that is neither absent, nor a server, nor a printer of one fails: 0x8007007B.",
        21: "No name means the server itself.",
        22: "A client holds registrations of several types, filters and styles at once.",
        23: "A registration object that stands cannot register again: ALREADY_REGISTERED.",
        24: (
            "The registration beyond the limit of its name and type fails: "
            "MAX_REGISTRATION_COUNT_EXCEEDED."
        ),
        25: "A registration that failed hears nothing and holds no reference to its callback.",
        26: "Only its own handle ends a registration; that of another client does not.",
        27: "Unregistering succeeds once; the handle is invalid from then on.",
        28: "Unregistering again reports ALREADY_UNREGISTERED and changes nothing.",
        29: "Unregistering what was never registered reports NOT_REGISTERED.",
        30: "Unregistering does not wait for a fetch that is parked on the registration.",
        31: "The fetch that is parked during unregister ends: 0x8007071A.",
        32: "After 0x8007071A each later fetch on that registration fails.",
        33: "Unregistering a unidirectional registration discards what it has not fetched.",
        34: "Unregistering a bidirectional one leaves its channels usable until they close.",
        35: "A channel created after unregister is never offered to that listener.",
        36: "An unregistered object can register again, with other parameters.",
        37: (
            "A fetch fails on an object never registered (0x8004000D) and on one unregistered "
            "(0x8004000E or 0x8007071A)."
        ),
    },
    "Matching": {
        38: "A registration for one printer hears nothing of another's channels.",
        39: "A registration for one type hears nothing of another type, whoever the user is.",
        40: "A registration hears the channels of its own style only.",
        41: (
            "A channel for a user reaches all registrations of that user, on all hosts and in "
            "all sessions."
        ),
        42: "A channel for one user does not reach another user's registration.",
        43: "A channel for a user reaches an administrator registered for all users.",
        44: "A channel for a user does not reach an administrator registered as another user.",
        45: "A channel for all users reaches the registrations of every user.",
        46: "A channel for all users reaches registrations for all users.",
        47: "A user in two sessions or on two hosts gets a copy for each registration.",
        48: "The bytes of a payload never decide where it goes.",
        49: "Server and printer scope match only where a registration asked for it.",
    },
    "Unidirectional delivery": {
        50: "Each matching registration gets a copy of its own.",
        51: "A listener's callback for a unidirectional notification gets no channel.",
        52: "A unidirectional listener cannot send anything back.",
        53: "A send that nobody listens to succeeds with NO_LISTENERS; nothing of it is kept.",
        54: "Who registers after a send does not get what was sent.",
        55: "Each listener gets the notifications of a channel in the order they were sent.",
        56: "A send issued while another is in work is queued, not refused.",
        57: "A registration without room misses the new notification and keeps the older ones.",
        58: (
            "A send that some listeners miss and some get succeeds with "
            "UNIRECTIONAL_NOTIFICATION_LOST."
        ),
        59: "A send that all of its listeners miss fails: ASYNC_NOTIFICATION_FAILURE.",
        60: "A slow listener neither delays nor costs the others anything.",
        61: "The buffer of a registration can be set; its documented default is 100.",
        62: "What is buffered waits for the next fetches and leaves one by one.",
        63: "A second fetch beside a parked one fails, 0x8004000C; the first goes on.",
        64: "Only its source can close a unidirectional channel.",
        65: "Deleting the printer ends a parked unidirectional fetch with NOTIFICATION_RELEASE.",
    },
    "Bidirectional: offer and acquisition": {
        66: "The initial notification reaches every listener that matches.",
        67: "All listeners see the same bytes and type in the initial notification.",
        68: "Who registers before anyone responded gets the same initial notification.",
        69: "Who registers after the acquisition is not offered the channel.",
        70: "An unanswered initial notification is held, also while nobody listens.",
        71: "One fetch of channels returns all open ones not yet returned to that registration.",
        72: "A channel is returned to a registration at most once.",
        73: "A second fetch of channels beside a parked one fails: 0x8004000C.",
        74: "Seeing the initial notification acquires nothing; several listeners can hold it.",
        75: "Data given with the first fetch on a channel handle is ignored.",
        76: "Of listeners that answer at once one acquires; the source sees one response.",
        77: "Who acquires is decided by the order in which the broker took the responses.",
        78: "Closing with data before anyone answered acquires, closes, and tells the source.",
        79: "Closing without data before anyone answered leaves the channel to the others.",
        80: "The source is not told of such a decline.",
        81: "A listener that declined hears no more of the channel.",
        82: "A loser's send fails with CHANNEL_ACQUIRED; its data never reaches the source.",
        83: (
            "A loser's close succeeds with CHANNEL_ACQUIRED, 0x00040010; its data never "
            "reaches the source."
        ),
        84: "A loser parked in a call is woken by NOTIFICATION_RELEASE, empty, with no handle.",
        85: "Nobody acquires a channel a second time, even after its owner died or it closed.",
    },
    "Bidirectional: dialog": {
        86: "After the acquisition only the owner gets further notifications.",
        87: (
            "A source that sends before the answer fails and changes nothing: "
            "CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION."
        ),
        88: "An owner that sends before the source spoke again fails: ASYNC_CALL_IN_PROGRESS.",
        89: "Each response of the owner reaches the source once, and in order.",
        90: "A payload of another type than the channel's fails: INVALID_NOTIFICATION_TYPE.",
        91: (
            "A payload of the size limit is taken, one byte more fails: "
            "MAX_NOTIFICATION_SIZE_EXCEEDED."
        ),
        92: "An empty payload of the right type is passed on.",
        93: "A send that failed, for type, size or state, leaves the channel as it was.",
    },
    "Close": {
        94: "Source and owner can both close an acquired channel.",
        95: "The end opposite to the closer gets one ChannelClosed.",
        96: "ChannelClosed carries the closer's data unchanged, or NOTIFICATION_RELEASE.",
        97: "A close discards what the channel still has queued; it is never delivered.",
        98: (
            "A source's close before any answer discards the held notification; nobody is "
            "offered it."
        ),
        99: "Answering a channel that its source closed unanswered: CHANNEL_ALREADY_CLOSED.",
        100: "Closing right after creation, before anything was sent, is refused.",
        101: "A second close by the same end fails and calls no second ChannelClosed.",
        102: "A close is done at once, also while a call on that channel is parked.",
        103: "Data attached to a close with NOTIFICATION_RELEASE is ignored.",
        104: "After a close that succeeded nobody is notified on that channel.",
        105: (
            "Of two ends that close at once one succeeds, the other gets "
            "CHANNEL_ALREADY_CLOSED; each sees at most one ChannelClosed."
        ),
        106: (
            "A response racing with the source's close is delivered before it, or refused; "
            "none is lost."
        ),
    },
    "Release and handles": {
        107: "An explicit reference needs one release more and leaves the implicit one alone.",
        108: (
            "One release after close frees a unidirectional source's handle; a further one is "
            "a violation."
        ),
        109: "After CHANNEL_ALREADY_CLOSED a release is a violation, and does nothing.",
        110: "Closing with and without a release after it both free the handle once.",
        111: "Release and close inside ChannelClosed are rejected, and do nothing.",
        112: "Any call on a handle after its ChannelClosed is rejected, and does nothing.",
        113: "A bidirectional source that sent nothing may release: the channel is gone, unheard.",
        114: "A bidirectional source may not release between its send and the next answer.",
        115: "A listener may release its handle unanswered, which declines.",
        116: "Callbacks present the handle that this end was first given for the channel.",
        117: "Where a thread and a callback both finish a channel, its handle drops once.",
        118: (
            "A registration holds one reference to its callback until it ends, each live "
            "channel one more."
        ),
        119: "Data given to a callback stays readable from AcquireData until ReleaseData.",
        120: "AcquireData of NOTIFICATION_RELEASE gives no bytes, size 0 and that type.",
    },
    "Failure": {
        121: "When the owner dies the source gets one ChannelClosed: NOTIFICATION_RELEASE.",
        122: "When another listener dies the source hears nothing and the rest can acquire.",
        123: "When the source dies each handle gets one ChannelClosed: NOTIFICATION_RELEASE.",
        124: (
            "When the broker dies both ends get NOTIFICATION_RELEASE; the channel does not "
            "come back."
        ),
        125: "After a restart listeners register again, after pauses of a second to a minute.",
        126: "Registrations refused for a right or a name are not tried again.",
        127: "OnEventNotify brings NOTIFICATION_RELEASE to unidirectional listeners only.",
        128: "Nothing is closed for being idle.",
    },
    "Built-in types": {
        129: "A bidirectional registration for printer configuration is rejected.",
        130: "A printer-configuration message above the limit is reduced until it fits.",
        131: "The answer to an AsyncUI message box is the close reason and ends the channel.",
        132: "AsyncUI replies say OK as 1, Cancel as 2, other buttons by their number.",
        133: (
            "An invalid AsyncUI message is closed with NOTIFICATION_RELEASE; a unidirectional "
            "one is skipped."
        ),
        134: "AsyncUI payloads pass byte for byte; the broker never loads or runs what they name.",
    },
    "Return values": {
        135: (
            "Every status is a 32-bit HRESULT; its severity bit decides, and 0x05, 0x07, 0x17 "
            "and 0x18 are always success."
        ),
        136: "A send that succeeded promises nothing about what listeners do with it.",
        137: (
            "A registration that reached one side only says so, LOCAL_ONLY_REGISTRATION or "
            "REMOTE_ONLY_REGISTRATION, succeeds, and works there."
        ),
    },
}

LATER: dict[int, str] = {}
"""Rules that this release does not have, and why."""

RULES: dict[int, str] = {
    number: says for rules in SECTIONS.values() for number, says in rules.items()
}


def rule(*numbers: int, on: str | None = None) -> pytest.MarkDecorator:
    """Mark a test with the rules that it shows.

    Args:
        numbers: the rules.
        on: the one backend that the test holds for, where it has no ``backend`` parameter and
            does not hold for all.

    Raises ValueError where there is no such rule, or none in this release.
    """
    if not numbers:
        raise ValueError("a test shows at least one rule")
    for number in numbers:
        if number not in RULES:
            raise ValueError(f"there is no rule {number}")
        if number in LATER:
            raise ValueError(f"rule {number} is for a later release: {LATER[number]}")
    return pytest.mark.rule(*numbers, on=on)
