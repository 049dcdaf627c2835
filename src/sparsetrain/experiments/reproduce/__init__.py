"""The published tables as data, and the runs that stand beside their numbers."""
