"""Data sets too large for memory: decoded by worker processes as they are needed."""

from .dataset import Reading as Reading
from .dataset import Source as Source
from .dataset import Streamed as Streamed
from .loader import StreamLoader as StreamLoader
