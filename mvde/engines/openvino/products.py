"""Large matrix products in OpenVINO (oneDNN), to measure a CPU's peak throughput in a precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mvde.engines.openvino.library import DEVICE, SUPPORTED, hint_of, openvino_library, shared_core
from mvde.precision import Precision


def product_chain(precision: Precision, size: int, count: int) -> Callable[[], object] | None:
    """Return a callable that runs ``count`` chained (size, size) products; ``None`` if the precision is unsupported.

    Weights are constants, as in an engine, so the library packs them once. Raises :class:`MissingDependencyError`
    without OpenVINO.
    """
    openvino = openvino_library()
    import openvino.opset13 as ops

    if precision not in SUPPORTED:
        return None
    rng = np.random.default_rng(0)
    x = ops.parameter([size, size], np.float32)
    value = x
    for _ in range(count):
        if precision is Precision.INT8:
            value = _quantized(ops, value)
            levels = ops.convert(ops.constant(rng.integers(-127, 128, (size, size), dtype=np.int8)), np.float32)
            weight = ops.multiply(levels, ops.constant(np.full((size, 1), 1 / 127, np.float32)))
        else:
            weight = ops.constant((rng.standard_normal((size, size)) / size**0.5).astype(np.float32))
        value = ops.matmul(value, weight, False, True)
    options = {"INFERENCE_PRECISION_HINT": hint_of(precision), "PERFORMANCE_HINT": "LATENCY"}
    try:
        compiled = shared_core().compile_model(openvino.Model([value], [x], "products"), DEVICE, options)
    except RuntimeError:
        return None
    if not _runs_in(compiled, _runtime_names(precision)):
        return None
    request, image = compiled.create_infer_request(), rng.standard_normal((size, size)).astype(np.float32)
    return lambda: request.infer([image], share_inputs=True)


def _quantized(ops: Any, value: Any) -> Any:
    low, high = (np.array([bound], np.float32) for bound in (-1.0, 127 / 128))
    return ops.fake_quantize(value, low, high, low, high, 256)


def _runtime_names(precision: Precision) -> set[str]:
    """Names of the precision in the executed graph."""
    return {"i8", "u8"} if precision is Precision.INT8 else {hint_of(precision)}


def _runs_in(compiled: Any, names: set[str]) -> bool:
    """Whether all products of the executed graph run in one of the given precisions."""
    about = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    products = [one for one in about if one["layerType"].astype(str) in {"FullyConnected", "MatMul"}]
    return bool(products) and all(one["runtimePrecision"].astype(str) in names for one in products)
