"""The methods, each one small file; `create` makes one by name."""

from .dense import Dense
from .gmp import GMP
from .granet import GraNet
from .itop import ITOP
from .magnitude import Magnitude
from .registry import Entry as Entry
from .registry import Option as Option
from .registry import card as card
from .registry import create as create
from .registry import get as get
from .registry import names as names
from .rigl import RigL
from .set import Set
from .snfs import SNFS
from .static import Static

dense, magnitude, static = Dense, Magnitude, Static
gmp, granet, itop, rigl, set, snfs = GMP, GraNet, ITOP, RigL, Set, SNFS

__all__ = [
    "Entry",
    "Option",
    "card",
    "create",
    "dense",
    "get",
    "gmp",
    "granet",
    "itop",
    "magnitude",
    "names",
    "rigl",
    "set",
    "snfs",
    "static",
]
