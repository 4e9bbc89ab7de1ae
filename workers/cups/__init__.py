"""CUPS print hosts on the farm: events out, questions in."""
