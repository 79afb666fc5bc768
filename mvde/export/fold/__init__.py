"""Named exact rewrites of an ONNX graph; each is equivalent in real arithmetic and documents why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mvde.errors import UsageError
from mvde.export.fold.affine import fold_affine_into_conv
from mvde.export.fold.attention import drop_open_masks, fold_scale_into_query, join_products
from mvde.export.fold.norm import fold_norm_into_products
from mvde.export.fold.patches import embed_patches_by_product
from mvde.export.fold.resize import convolve_before_resize, squeeze_before_resize
from mvde.export.fold.spread import spread_by_depth_to_space
from mvde.export.fold.transposed import merge_conv_into_transposed
from mvde.export.graph.edit import remove_unused

if TYPE_CHECKING:
    import onnx_ir as ir

RULES: dict[str, Callable[[ir.Model], int]] = {
    "affine-into-conv": fold_affine_into_conv,
    "patches-by-product": embed_patches_by_product,
    "norm-into-products": fold_norm_into_products,
    "drop-open-masks": drop_open_masks,
    "scale-into-query": fold_scale_into_query,
    "joint-products": join_products,
    "conv-before-resize": convolve_before_resize,
    "conv-into-transposed": merge_conv_into_transposed,
    "spread-by-depth-to-space": spread_by_depth_to_space,
    "squeeze-before-resize": squeeze_before_resize,
    "unused": remove_unused,
}
"""All rules by name, in order of application."""

DEFAULT_RULES = (
    "affine-into-conv",
    "conv-before-resize",
    "drop-open-masks",
    "spread-by-depth-to-space",
    "squeeze-before-resize",
    "unused",
)
"""Rules measured to speed up at least one backend and to slow down none (``benchmarks/fold_ledger.py``).

``spread-by-depth-to-space`` is included because TensorRT-RTX rejects bf16 decoders without it, ``drop-open-masks``
because the faster attention of every backend takes no mask.
"""


def fold_graph(model: ir.Model, rules: Iterable[str] = DEFAULT_RULES) -> dict[str, int]:
    """Apply ``rules`` to ``model`` in place and return the number of applications per rule.

    Raises :class:`UsageError` for an unknown rule.
    """
    wanted = set(rules)
    if unknown := wanted - set(RULES):
        raise UsageError(f"unknown rule {', '.join(sorted(unknown))}; the rules are {', '.join(RULES)}")
    applied = {name: RULES[name](model) for name in RULES if name in wanted and name != "unused"}
    return {**applied, "unused": remove_unused(model)}
