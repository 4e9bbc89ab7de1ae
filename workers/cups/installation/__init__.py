"""Tympan on a CUPS host: what is placed there, what runs, and whether events flow."""
