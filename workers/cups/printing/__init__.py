"""Printing: one run of the backend ``tympan``, and its line to the bridge."""
