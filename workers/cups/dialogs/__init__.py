"""Dialogs in: what is asked about jobs, who answers, and what the jobs do by that."""
