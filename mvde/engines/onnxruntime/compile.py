"""Compile for ONNX Runtime: rewrite the typed graph for the provider, and determine its executed precision.

The precision is that of a profiled run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mvde.engines.base import BuildOptions, Compiled, Graph
from mvde.engines.machine import cpu_name, num_cpus, nvidia_gpus
from mvde.engines.onnxruntime.engine import open_graph
from mvde.engines.onnxruntime.providers import (
    Provider,
    available_providers,
    check_all_products_on_provider,
    default_provider,
)
from mvde.engines.onnxruntime.rewrite import rewritten
from mvde.engines.onnxruntime.session import SessionSettings
from mvde.engines.settings import one_of
from mvde.errors import UsageError
from mvde.precision import Precision

ENGINE_FILE = "engine.onnx"
PROVIDER = "provider"

_PRODUCTS = {"Conv", "MatMul", "Gemm", "Attention", "FusedMatMul", "FusedConv", "FusedGemm", "MultiHeadAttention"}
_PRODUCTS |= {"MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "QLinearConv", "QGemm", "ConvInteger"}
_DTYPE_NAMES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}


def chosen_provider(options: BuildOptions) -> Provider:
    """Requested provider, or the best one available.

    Raises :class:`UsageError` if it is unknown or missing from the installed package.
    """
    if PROVIDER not in options.settings:
        return default_provider()
    provider = Provider(one_of(PROVIDER, options.settings[PROVIDER], [str(provider) for provider in Provider]))
    there = available_providers()
    if provider not in there:
        raise UsageError(
            f"the installed ONNX Runtime has no {str(provider)!r} provider; it has {', '.join(there) or 'none'} "
            "(GPU providers come with 'mvde[onnxruntime-gpu]')"
        )
    return provider


def tuning_settings(chosen: BuildOptions) -> list[dict[str, Any]]:
    """Settings to measure on this machine, one at a time: threads, spinning, memory and graph optimisation."""
    if chosen_provider(chosen) is not Provider.CPU:
        raise UsageError("--tune is for engines on the CPU; leave it out, or add --set provider=cpu")
    settings: list[dict[str, Any]] = [
        {"allow_spinning": "0"},
        {"optimization": "extended"},
        {"optimization": "basic"},
        {"mem_pattern": "0"},
    ]
    if chosen.num_threads is None:
        cpus = num_cpus()
        settings += [{"num_threads": count} for count in sorted({max(cpus // 2, 1), cpus})]
    return settings


def compile_graph(graph: Graph, folder: Path, precision: Precision, chosen: BuildOptions) -> Compiled:
    """Write the engine to ``folder``: the graph rewritten for the provider, with the precision of a profiled run."""
    provider = chosen_provider(chosen)
    target = folder / ENGINE_FILE
    rewrites = _written(graph.path, target, provider, chosen)
    for companion in graph.companions:  # under the names used in the graph; a lowered graph's are in place
        if companion.parent != folder:
            shutil.copyfile(companion, folder / companion.name)
    options: dict[str, Any] = {PROVIDER: str(provider)}
    if chosen.num_threads is not None:
        options["num_threads"] = chosen.num_threads
    options |= chosen.library
    profile = _profiled_run(target, options, precision)
    check_all_products_on_provider(profile, provider.library_name, _PRODUCTS)
    # TensorRT's provider runs the graph as one node without dtypes; it is restricted to those of the typed graph.
    executed = str(precision) if provider is Provider.TENSORRT else executed_precision(profile)
    device = cpu_name() if provider is Provider.CPU else nvidia_gpus()[0].split(",")[0]
    names = (ENGINE_FILE, *(companion.name for companion in graph.companions))
    return Compiled(names, executed, device, options, rewrites)


def _written(source: Path, target: Path, provider: Provider, chosen: BuildOptions) -> dict[str, str]:
    """Write the graph for the provider; return the operators that were rewritten: GPU providers take it as it is."""
    if provider is not Provider.CPU:
        shutil.copyfile(source, target)
        return {}
    return rewritten(source, target, settings=SessionSettings(num_threads=chosen.num_threads))


def executed_precision(profile: list[dict[str, Any]]) -> str:
    """Precision of the products (matrix, convolution, attention) in a profile: ``"fp32"``, ``"fp16"``, ``"fp32+fp16"``.

    Ordered by time spent. Due to inserted casts an fp16 graph may compute in fp32.
    """
    time_us: dict[str, int] = {}
    for event in profile:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and arguments.get("op_name") in _PRODUCTS and arguments.get("input_type_shape"):
            dtype = next(iter(arguments["input_type_shape"][0]))
            name = _DTYPE_NAMES.get(dtype, dtype)
            time_us[name] = time_us.get(name, 0) + int(event["dur"])
    return "+".join(sorted(time_us, key=lambda name: -time_us[name])) or "fp32"


def _profiled_run(path: Path, options: dict[str, Any], precision: Precision) -> list[dict[str, Any]]:
    """ONNX Runtime's profile of one run on zero images."""
    import numpy as np

    with tempfile.TemporaryDirectory() as scratch:
        session = open_graph(path, options, precision, profile_prefix=str(Path(scratch) / "profile"))
        node = session.get_inputs()[0]
        session.run(None, {node.name: np.zeros(node.shape, np.uint8)})
        profile: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return profile
