"""Floating-point operations, dense and at the masks' density; a multiply-add counts as two."""

from __future__ import annotations

from ..analysis.flops import TRAIN_FACTOR as TRAIN_FACTOR
from ..analysis.flops import ForwardFlops as ForwardFlops
from ..analysis.flops import count_forward as count_forward
