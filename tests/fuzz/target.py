"""One parser under the fuzzer: ``tests.fuzz.target PARSER FOLDER [libFuzzer's options]``."""

from __future__ import annotations

import logging
import sys

import atheris  # type: ignore[import-untyped]  # of .venv-fuzz

with atheris.instrument_imports(include=["broker", "workers"]):
    from tests.fuzz.parsers import PARSERS


def main() -> None:
    """Never returns."""
    logging.disable()
    _, name, *options = sys.argv
    atheris.Setup([sys.argv[0], *options], PARSERS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
