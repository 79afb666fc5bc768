"""Typed graphs: an fp32 ONNX file → the same graph in a lower precision, with every dtype explicit. No torch."""

from mvde.export.precision.artifact import find_typed, lowerer, write_typed
from mvde.export.precision.lower import LOWERED, check_options, lower_graph
from mvde.export.precision.options import HeldOut, LowerOptions

__all__ = ["LOWERED", "HeldOut", "LowerOptions", "check_options", "find_typed", "lower_graph", "lowerer", "write_typed"]
