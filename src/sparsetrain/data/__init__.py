"""Data sets in memory, and a loader that keeps them on the device."""

from .augment import Augment as Augment
from .catalog import Entry as Entry
from .catalog import describe as describe
from .catalog import load as load
from .catalog import names as names
from .dataset import DataError as DataError
from .dataset import Dataset as Dataset
from .download import Progress as Progress
from .loader import Loader as Loader
from .splits import split as split
