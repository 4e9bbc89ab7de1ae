"""State reasons of printers that anybody has written down, and what another word may mean."""

from __future__ import annotations

import re
from difflib import get_close_matches

from workers.cups.cupsd.state import stem

_SUBUNITS = """
    bander binder die-cutter folder imprinter inserter make-envelope perforater puncher
    separation-cutter sheet-rotator slitter stacker stapler stitcher trimmer wrapper
"""
_HAPPENS = """
    added almost-empty almost-full at-limit closed configuration-change cover-closed cover-open
    empty full interlock-closed interlock-open jam life-almost-over life-over memory-exhausted
    missing motor-failure near-limit offline opened over-temperature power-saver
    recoverable-failure recoverable-storage removed resource-added resource-removed
    thermistor-failure timing-failure turned-off turned-on under-temperature
    unrecoverable-failure unrecoverable-storage-error warming-up
"""
_SINGLE = """
    alert-removal-of-binary-change-entry camera-failure chamber-cooling chamber-failure
    chamber-heating chamber-temperature-high chamber-temperature-low cleaner-life-almost-over
    cleaner-life-over configuration-change connecting-to-device cover-open deactivated
    developer-empty developer-low door-open extruder-cooling extruder-failure extruder-heating
    extruder-jam extruder-temperature-high extruder-temperature-low fan-failure
    fax-modem-life-almost-over fax-modem-life-over fax-modem-missing fax-modem-turned-off
    fax-modem-turned-on fuser-over-temp fuser-under-temp hold-new-jobs
    identify-printer-requested input-cannot-feed-size-selected input-manual-input-request
    input-media-color-change input-media-form-parts-change input-media-size-change
    input-media-tray-failure input-media-tray-feed-error input-media-tray-jam
    input-media-type-change input-media-weight-change input-pick-roller-failure
    input-pick-roller-life-over input-pick-roller-life-warn input-pick-roller-missing
    input-tray-elevation-failure input-tray-missing input-tray-position-failure interlock-closed
    interlock-open interpreter-cartridge-added interpreter-cartridge-deleted
    interpreter-complex-page-encountered interpreter-memory-decrease interpreter-memory-increase
    interpreter-resource-added interpreter-resource-deleted interpreter-resource-unavailable
    lamp-at-eol lamp-failure lamp-near-eol laser-at-eol laser-failure laser-near-eol
    marker-adjusting-print-quality marker-cleaner-missing marker-developer-almost-empty
    marker-developer-empty marker-developer-missing marker-fuser-missing
    marker-fuser-thermistor-failure marker-fuser-timing-failure marker-ink-almost-empty
    marker-ink-empty marker-ink-missing marker-opc-missing marker-print-ribbon-almost-empty
    marker-print-ribbon-empty marker-print-ribbon-missing marker-supply-almost-empty
    marker-supply-empty marker-supply-low marker-supply-missing marker-toner-cartridge-missing
    marker-toner-missing marker-waste-almost-full marker-waste-full
    marker-waste-ink-receptacle-almost-full marker-waste-ink-receptacle-full
    marker-waste-ink-receptacle-missing marker-waste-missing
    marker-waste-toner-receptacle-almost-full marker-waste-toner-receptacle-full
    marker-waste-toner-receptacle-missing material-empty material-low material-needed
    media-drying media-empty media-jam media-low media-needed
    media-path-cannot-duplex-media-selected media-path-failure media-path-input-empty
    media-path-input-feed-error media-path-input-jam media-path-input-request media-path-jam
    media-path-media-tray-almost-full media-path-media-tray-full media-path-media-tray-missing
    media-path-output-feed-error media-path-output-full media-path-output-jam
    media-path-pick-roller-failure media-path-pick-roller-life-over
    media-path-pick-roller-life-warn media-path-pick-roller-missing motor-failure
    moving-to-paused offline opc-life-over opc-near-eol other output-area-almost-full
    output-area-full output-mailbox-select-failure output-media-tray-failure
    output-media-tray-feed-error output-media-tray-jam output-tray-missing paused
    platform-cooling platform-failure platform-heating platform-temperature-high
    platform-temperature-low power-down power-up printer-manual-reset printer-nms-reset
    printer-ready-to-print shutdown spool-area-full stopped-partly stopping subunit-added
    subunit-almost-empty subunit-almost-full subunit-at-limit subunit-closed
    subunit-cooling-down subunit-empty subunit-full subunit-life-almost-over subunit-life-over
    subunit-memory-exhausted subunit-missing subunit-motor-failure subunit-near-limit
    subunit-offline subunit-opened subunit-over-temperature subunit-power-saver
    subunit-recoverable-failure subunit-recoverable-storage subunit-removed
    subunit-resource-added subunit-resource-removed subunit-thermistor-failure
    subunit-timing-failure subunit-turned-off subunit-turned-on subunit-under-temperature
    subunit-unrecoverable-failure subunit-unrecoverable-storage-error subunit-warming-up
    timed-out toner-empty toner-low unknown
"""
KNOWN = frozenset(
    {
        *_SINGLE.split(),
        *(f"{unit}-{what}" for unit in _SUBUNITS.split() for what in _HAPPENS.split()),
    }
)
"""Those that IANA has registered for IPP, without severities, and what CUPS' backends say."""
_VENDORS = re.compile(r"cups-.+|smi\d+-.+|[^.]+\..+")
"""CUPS' own, and those that begin with a vendor's number or domain: ``com.example-lamp``."""
_ALIKE = 0.75
"""Of difflib's ratio: up to two letters that are wrong in a word of six."""


def is_known(reason: str) -> bool:
    """Whether a printer may well say so; with or without a severity."""
    return not {reason, stem(reason)}.isdisjoint(KNOWN) or bool(_VENDORS.fullmatch(reason))


def is_like(word: str, other: str) -> bool:
    """Whether one may be the other, mistyped."""
    return bool(get_close_matches(stem(word), [other], cutoff=_ALIKE))


def doubt(reason: str) -> str:
    """Why a printer may never say so, as a sentence; empty where it is known."""
    if is_known(reason):
        return ""
    meant = get_close_matches(stem(reason), KNOWN, n=1, cutoff=_ALIKE)
    if meant:
        return f"{reason!r} is no known state reason; did you mean {meant[0]!r}?"
    return f"{reason!r} is no known state reason: it counts only if the printer says it"
