"""One file a kind of figure; each function gives a figure, or None where it has no data."""
