"""Relays: workers that send alerts on by mail or webhook, folded, and never too many."""
