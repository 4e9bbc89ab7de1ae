"""How far the broker is from raw Redis, and from what else would do the same work."""
