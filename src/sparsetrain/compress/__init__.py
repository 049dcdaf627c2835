"""Small files of pruned networks, and other programs' formats."""

from .folding import fold as fold
from .groups import keep_n_of_m as keep_n_of_m
from .loading import load as load
from .loading import read as read
from .onnx import export_onnx as export_onnx
from .saving import save as save
from .semi_structured import convert_2to4_ as convert_2to4_
from .semi_structured import is_2to4 as is_2to4
from .semi_structured import layers_2to4 as layers_2to4
from .semi_structured import reason_against as reason_against
