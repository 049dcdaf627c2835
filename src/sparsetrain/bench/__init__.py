"""Is it faster, and is it smaller: one network on this machine, dense engines beside ours."""

from .run import BenchOptions as BenchOptions
from .run import bench as bench
from .verdict import text as text
