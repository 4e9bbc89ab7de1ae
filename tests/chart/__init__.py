"""The chart in helm/: rendered by both majors of helm, and held to what it says and means."""
