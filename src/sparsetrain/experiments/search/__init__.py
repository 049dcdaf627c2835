"""Search over settings, by held-out images alone."""
