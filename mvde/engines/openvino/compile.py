"""Compile a graph to an OpenVINO blob with mvde's operators, and list the settings for tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mvde.engines.base import BuildOptions, Compiled, Graph, one_line
from mvde.engines.machine import cpu_name, has_hyper_threads, num_cpus
from mvde.engines.openvino import attention, gelu, int8_linear, linear, narrow_weights
from mvde.engines.openvino.library import (
    DEVICE,
    arithmetic,
    executed_precision,
    hint_of,
    library_version,
    shared_core,
)
from mvde.engines.openvino.operators import library_options
from mvde.errors import BackendError
from mvde.precision import Precision

ENGINE_FILE = "engine.blob"

RESTS = (Precision.FP32, Precision.BF16, Precision.FP16)
"""Precisions for the nodes of an int8 graph that are not quantised; the library lowers them."""


def rest_of_int8() -> Precision:
    """Default precision on this machine for nodes of an int8 graph that are not quantised.

    Bf16 if the CPU supports it: in fp32, attention and the operators between products take two thirds of the latency.
    """
    return Precision.BF16 if arithmetic(Precision.BF16).works else Precision.FP32


def compile_graph(graph: Graph, folder: Path, precision: Precision, chosen: BuildOptions) -> Compiled:
    """Write the engine to ``folder`` as an OpenVINO blob, with the compiled model's actual precision.

    Raises :class:`BackendError` if the library cannot compile the graph or computes in another precision.
    """
    try:
        compiled, options, rewrites = compile_model(graph.path, precision, chosen)
        executed = executed_precision(compiled)
        (folder / ENGINE_FILE).write_bytes(compiled.export_model().getvalue())
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot compile {graph.path}: {one_line(error)}") from error
    main, *others = executed.split("+")
    if precision not in (main, *(others if precision.is_quantized else ())):  # int8 may not be the main one
        raise BackendError(
            f"OpenVINO was asked for {precision} and computes in {executed} on this CPU; "
            f"build openvino:{main} if that is what you want"
        )
    return Compiled((ENGINE_FILE,), executed, cpu_name(), options, rewrites)


def compile_model(path: Path, precision: Precision, chosen: BuildOptions) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """Compile a graph; return the compiled model, the options it needs, and the operators that mvde replaced.

    Raises :class:`RuntimeError` if the library cannot compile it.
    """
    options = {**_options(precision, chosen), **chosen.library}
    layers = options.pop(linear.OPTION, linear.default(precision))
    model = shared_core().read_model(str(path))
    options, rewrites = attention.applied(shared_core(), model, options, library_version())
    if precision is Precision.INT8:
        options, replaced_linear = int8_linear.applied(shared_core(), model, options, library_version())
        rewrites.update(replaced_linear)
    if gelu.is_default() and (replaced := gelu.by_sigmoid(model)):
        rewrites[gelu.REWRITE] = f"{replaced} by a sigmoid"
    if layers == linear.CONVOLUTIONS:  # last: attention matching needs the original linear layers
        rewrites[linear.OPTION] = f"{linear.to_convolutions(model)} as 1×1 convolutions"
    passed = library_options(options)
    if precision is Precision.BF16:
        compiled, rewrites[narrow_weights.REWRITE] = narrow_weights.compiled(shared_core(), model, passed)
    else:
        compiled = shared_core().compile_model(model, DEVICE, passed)
    return compiled, options, rewrites


def tuning_settings(precision: Precision, chosen: BuildOptions) -> list[dict[str, Any]]:
    """Settings to measure on this machine, one at a time: threads, pinning, work partitioning and generated kernels.

    Values are text, which OpenVINO accepts from both Python and C++.
    """
    cpus = num_cpus()
    settings: list[dict[str, Any]] = [
        {"TBB_PARTITIONER": "STATIC"},
        {"TBB_PARTITIONER": "AUTO"},
        {"ENABLE_CPU_PINNING": "NO"},
        {"CPU_DENORMALS_OPTIMIZATION": "YES"},
        {"SNIPPETS_MODE": "DISABLE"},
        {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "1"},
    ]
    if chosen.num_threads is None:
        settings += [{"INFERENCE_NUM_THREADS": str(count)} for count in sorted({max(cpus // 2, 1), cpus})]
    if precision is Precision.BF16:
        other = {linear.CONVOLUTIONS: linear.PRODUCTS, linear.PRODUCTS: linear.CONVOLUTIONS}
        settings.append({linear.OPTION: other[linear.default(precision)]})
    others = attention.alternatives(_options(precision, chosen), library_version())
    settings += [{attention.OPTION: other} for other in others]
    if precision is Precision.INT8 and int8_linear.is_default(library_version()):
        settings.append({int8_linear.OPTION: int8_linear.LIBRARYS})
    if precision is Precision.INT8 and chosen.rest is None:  # the rest; parity is checked for the winner
        rests = [rest for rest in RESTS if rest != rest_of_int8() and arithmetic(rest).works]
        settings += [{"INFERENCE_PRECISION_HINT": hint_of(rest)} for rest in rests]
    if has_hyper_threads():
        settings += [{"ENABLE_HYPER_THREADING": answer} for answer in ("YES", "NO")]
    return settings


def _options(precision: Precision, chosen: BuildOptions) -> dict[str, Any]:
    floats = (chosen.rest or rest_of_int8()) if precision is Precision.INT8 else precision
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint_of(floats)}
    if chosen.num_threads is not None:
        options["INFERENCE_NUM_THREADS"] = chosen.num_threads
    return options
