"""Slow, plain twins of what the library computes, for comparison."""
