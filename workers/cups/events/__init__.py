"""Events out: from what cupsd tells its notifier, over the journal, to the farm's channels."""
