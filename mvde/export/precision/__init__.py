"""Typed graphs: an fp32 ONNX file → the same graph in a lower precision, with every dtype explicit. No torch.

The modules, from the top down:

- :mod:`typed_graph` writes a typed graph beside the fp32 one, and finds it again;
- :mod:`lower` goes the whole way, with the options of :mod:`lowering_options` and the pictures of :mod:`images`;
- :mod:`floats` and :mod:`products` decide what of a graph becomes fp16 or bf16, and what int8 or fp8, each giving a
  :mod:`lowered_model`;
- :mod:`decide` finds the :mod:`groups` of nodes that must stay, by what a :mod:`probe` measures, until the
  :mod:`targets` are met;
- :mod:`cast`, :mod:`quantize` and :mod:`balance` rewrite the graph, with the ranges of :mod:`calibrate`;
- :mod:`emulate` makes a graph that a CPU computes as its dtypes say, :mod:`gate` judges it on other images, and
  :mod:`node_counts` says what is in the file.
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
