"""Typed graphs: an fp32 ONNX file → the same graph in a lower precision, with every dtype explicit. No torch."""

from mvde.export.precision.lower import lower_graph
from mvde.export.precision.options import LowerOptions

__all__ = ["LowerOptions", "lower_graph"]
