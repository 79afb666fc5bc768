"""Exact rewrites of an ONNX graph, as named rules: each is equal in real arithmetic, and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mvde.errors import UsageError
from mvde.export.fold.affine import fold_affine_into_conv
from mvde.export.fold.attention import fold_scale_into_query, join_products
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
    "scale-into-query": fold_scale_into_query,
    "joint-products": join_products,
    "conv-before-resize": convolve_before_resize,
    "conv-into-transposed": merge_conv_into_transposed,
    "spread-by-depth-to-space": spread_by_depth_to_space,
    "squeeze-before-resize": squeeze_before_resize,
    "unused": remove_unused,
}
"""Every rule by name, in the order in which they are applied."""

DEFAULT_RULES = (
    "affine-into-conv",
    "conv-before-resize",
    "spread-by-depth-to-space",
    "squeeze-before-resize",
    "unused",
)
"""The rules that were measured to pay on a backend and to harm none (``benchmarks/fold_ledger.py``), and
``spread-by-depth-to-space``, without which TensorRT-RTX takes no decoder in bf16."""


def fold_graph(model: ir.Model, rules: Iterable[str] = DEFAULT_RULES) -> dict[str, int]:
    """How often each rule was applied to ``model``, which is rewritten in place.

    Raises :class:`UsageError` for a rule that does not exist.
    """
    wanted = set(rules)
    if unknown := wanted - set(RULES):
        raise UsageError(f"there is no rule {', '.join(sorted(unknown))}; the rules are {', '.join(RULES)}")
    applied = {name: RULES[name](model) for name in RULES if name in wanted and name != "unused"}
    return {**applied, "unused": remove_unused(model)}
