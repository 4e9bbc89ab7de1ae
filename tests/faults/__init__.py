"""Faults: everything that can be broken on one machine is broken, and the promises hold.

``python -m tests.faults`` runs the cases, prints a table, and ends with status 1 where a promise
was broken. Each module of :mod:`tests.faults.cases` breaks one kind of thing.
"""
