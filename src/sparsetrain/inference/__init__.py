"""Inference that uses the zeros: a trained module compiled for the CPU."""

from .compile import compile_sparse as compile_sparse
from .compiled import CompiledNetwork as CompiledNetwork
from .explain import Explanation as Explanation
from .explain import Layer as Layer
