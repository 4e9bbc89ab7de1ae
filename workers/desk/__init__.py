"""The desk: what a person sees of a farm's questions and alerts, and may answer."""
