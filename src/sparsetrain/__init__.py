"""Train sparse neural networks in PyTorch: prune, regrow, run.

Attach a method to any loop in two lines::

    import sparsetrain as st

    method = st.methods.static(sparsity=0.9)
    sparsifier = st.Sparsifier(model, optimizer, method)
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import criteria as criteria
from . import distributions as distributions
from . import masks as masks
from . import methods as methods
from . import saliency as saliency
from . import schedules as schedules
from .art import ART as ART
from .art_strengths import art_strengths as art_strengths
from .batchnorm import recalibrate_batchnorm_ as recalibrate_batchnorm_
from .citations import cite as cite
from .compute import SparseCompute as SparseCompute
from .imp import IMP as IMP
from .inference import compile_sparse as compile_sparse
from .prune import prune as prune
from .regularizers import L1 as L1
from .regularizers import L2 as L2
from .regularizers import HyperSparse as HyperSparse
from .selection import select as select
from .sparsifier import Sparsifier as Sparsifier
from .types import Method as Method
from .types import View as View

if TYPE_CHECKING:
    from . import analysis as analysis
    from . import compress as compress
    from . import data as data
    from . import models as models
    from .training.finished import load_run as load_run

__version__ = "0.1.0"

_LAZY = ("analysis", "compress", "data", "models")  # these cost nothing until they are asked for


def __getattr__(name: str) -> Any:
    if name == "load_run":
        return importlib.import_module(".training.finished", __name__).load_run
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
