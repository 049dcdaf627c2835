"""The methods, each one small file; `create` makes one by name."""

from .dense import Dense as dense
from .magnitude import Magnitude as magnitude
from .registry import Entry as Entry
from .registry import Option as Option
from .registry import create as create
from .registry import get as get
from .registry import names as names
from .static import Static as static

__all__ = ["Entry", "Option", "create", "dense", "get", "magnitude", "names", "static"]
