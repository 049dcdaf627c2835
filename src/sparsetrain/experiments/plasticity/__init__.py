"""Pruning plasticity: how well a network recovers from pruning, by when it is pruned."""
