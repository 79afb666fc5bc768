"""ONNX Runtime's CUDA and TensorRT providers: options, an engine cache of mvde's own, and what really ran there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mvde.engines.tensorrt.build import user_cache_dir
from mvde.errors import BackendError
from mvde.files import sha256_file

_ALLOWED_BY_PRECISION = {"fp32": (), "fp16": ("fp16",), "bf16": ("bf16",), "int8": ("int8", "fp16"), "fp8": ("fp16",)}


def provider_options(provider: str, precision: str, graph: Path, version: str) -> dict[str, str]:
    """Options of a provider for a typed graph, in ONNX Runtime's own words; none for the CPU.

    TF32 is off for fp32, as in mvde's own engines. TensorRT may use the precisions that the graph has, and keeps what
    it built in a folder for this graph and this version of ONNX Runtime (the library itself compares GPU and TensorRT).
    """
    if provider == "cuda":
        return {"use_tf32": "0"} if precision == "fp32" else {}
    if provider != "tensorrt":
        return {}
    folder = str(cache_folder(graph, version))
    options = {f"trt_{name}_enable": "1" for name in _ALLOWED_BY_PRECISION[precision]}
    return {
        **options,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }


def cache_folder(graph: Path, version: str) -> Path:
    """Where TensorRT's engines of a graph are kept, made if it is not there; in the user's cache folder."""
    digest = hashlib.sha256(f"{version} {sha256_file(graph)}".encode()).hexdigest()[:16]
    folder = user_cache_dir() / "onnxruntime" / digest
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_nothing_strayed(profile: list[dict[str, Any]], provider: str, products: set[str]) -> None:
    """Nothing, if a profiled run had every product (matrix, convolution, attention) on the provider it was meant for.

    ONNX Runtime hands nodes that a provider does not take to the next one, the CPU at last, without a word. Raises
    :class:`BackendError` naming them.
    """
    strayed = sorted(
        {
            f"{event.get('name', '?').removesuffix('_kernel_time')} ({event['args'].get('provider')})"
            for event in profile
            if event.get("cat") == "Node"
            and event.get("args", {}).get("op_name") in products
            and event["args"].get("provider") not in (None, provider)
        }
    )
    if strayed:
        raise BackendError(
            f"ONNX Runtime ran {len(strayed)} products elsewhere than on {provider}: {', '.join(strayed[:3])}; use "
            "another --provider, or export with --opset 20 where the graph has operators that it does not know"
        )
