"""Typed graphs: an fp32 ONNX file converted to a lower precision with explicit dtypes, without PyTorch.

The modules, from the top down:

- :mod:`typed_graph` writes a typed graph beside the fp32 one, and finds it again;
- :mod:`lower` runs the whole conversion, with :mod:`lowering_options` and the calibration images of :mod:`images`;
- :mod:`floats` and :mod:`products` decide which nodes become fp16 or bf16, and which int8 or fp8; each returns a
  :mod:`lowered_model`;
- :mod:`decide` selects the :mod:`groups` of nodes to keep, from the measurements of a :mod:`probe`, until the
  :mod:`targets` are met;
- :mod:`cast`, :mod:`quantize` and :mod:`balance` rewrite the graph, with the ranges of :mod:`calibrate`;
- :mod:`emulate` makes a graph that a CPU computes as its dtypes specify, :mod:`gate` validates it on held-out images,
  and :mod:`node_counts` counts the nodes of the file by dtype.
"""

from mvde.export.precision.lower import lower_graph
from mvde.export.precision.lowering_options import HeldOut, LowerOptions, check_lowered
from mvde.export.precision.typed_graph import find_typed, lowerer, write_typed

__all__ = [
    "HeldOut",
    "LowerOptions",
    "check_lowered",
    "find_typed",
    "lower_graph",
    "lowerer",
    "write_typed",
]
