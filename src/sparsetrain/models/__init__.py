"""The networks of the sparse-training papers, each by one name, and timm's where it is there."""

from .registry import ModelInfo as ModelInfo
from .registry import check as check
from .registry import create as create
from .registry import describe as describe
from .registry import names as names
