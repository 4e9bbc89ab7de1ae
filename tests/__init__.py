"""Tests of Tympan, and the harness they share."""
