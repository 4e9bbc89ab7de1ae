"""Toner alerts: a notification type and a bridge that plug into Tympan."""
