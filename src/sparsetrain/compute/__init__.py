"""Sparse forward and backward passes while a network trains."""

from .context import SparseCompute as SparseCompute
