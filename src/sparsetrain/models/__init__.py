"""The networks of the sparse-training papers, each by one name."""

from .registry import ModelInfo as ModelInfo
from .registry import create as create
from .registry import describe as describe
from .registry import names as names
