"""Programs around the broker: command line, demonstration and private Redis server."""
