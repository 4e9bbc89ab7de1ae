"""A print farm of real parts: three cupsds, a Redis, the bridges, simulated printers, listeners."""
