"""The methods, each one small file; `create` makes one by name."""

from .dense import Dense
from .magnitude import Magnitude
from .registry import Entry as Entry
from .registry import Option as Option
from .registry import create as create
from .registry import get as get
from .registry import names as names
from .static import Static

dense, magnitude, static = Dense, Magnitude, Static

__all__ = ["Entry", "Option", "create", "dense", "get", "magnitude", "names", "static"]
