"""The verbs of the command: each takes its words and returns the exit code."""
