"""Functions on plain tensors, each exact and each with a naive twin in the tests."""

from .order import count_true as count_true
from .order import kth_smallest as kth_smallest
from .order import kth_smallest_magnitude as kth_smallest_magnitude
