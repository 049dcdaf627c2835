"""Data sets, in memory or on the disk, and the loaders that bring them to the device."""

from .augment import Augment as Augment
from .catalog import AnyDataset as AnyDataset
from .catalog import Entry as Entry
from .catalog import describe as describe
from .catalog import load as load
from .catalog import names as names
from .dataset import DataError as DataError
from .dataset import Dataset as Dataset
from .deal import Feed as Feed
from .download import Progress as Progress
from .loader import Loader as Loader
from .splits import split as split
from .streamed import Reading as Reading
from .streamed import Streamed as Streamed
from .streamed import StreamLoader as StreamLoader
