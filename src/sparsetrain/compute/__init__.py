"""Sparse forward and backward passes while a network trains."""
