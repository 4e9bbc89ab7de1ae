"""Proof: histories that clients record, and the invariants that each history is judged by.

:mod:`~workers.proof.history` is what is recorded, :mod:`~workers.proof.invariants` what must hold
of it, :mod:`~workers.proof.losses` what may be lost, and counted. Histories are made by
:mod:`~workers.proof.talk` in one process and by :mod:`~workers.proof.race` and
:mod:`~workers.proof.party` in several; ``tympan prove`` plays all of it on a Redis of the user's
own (:mod:`~workers.proof.play`).
"""
