"""ONNX Runtime's execution providers: their options, an engine cache, and a check of what ran where."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Any

from mvde.engines.cache import tensorrt_cache_dir
from mvde.engines.machine import nvidia_gpus
from mvde.engines.onnxruntime.session import CPU_PROVIDER, onnxruntime_library
from mvde.errors import BackendError
from mvde.files import sha256_file
from mvde.precision import Precision


class Provider(str, Enum):
    """Execution provider by its user-facing name."""

    TENSORRT = "tensorrt"
    CUDA = "cuda"
    CPU = "cpu"

    def __str__(self) -> str:
        return self.value

    @property
    def library_name(self) -> str:
        """The library's name of the provider."""
        match self:
            case Provider.TENSORRT:
                return "TensorrtExecutionProvider"
            case Provider.CUDA:
                return "CUDAExecutionProvider"
            case Provider.CPU:
                return CPU_PROVIDER


def available_providers() -> list[Provider]:
    """Providers of the installed package. Raises :class:`MissingDependencyError` without ONNX Runtime."""
    there = onnxruntime_library().get_available_providers()
    return [provider for provider in Provider if provider.library_name in there]


def default_provider() -> Provider:
    """CUDA if the package has the provider and a GPU is present, else the CPU."""
    return Provider.CUDA if Provider.CUDA in available_providers() and nvidia_gpus() else Provider.CPU


def provider_options(
    provider: Provider, precision: Precision, graph: Path, version: str, graph_sha256: str | None = None
) -> dict[str, str]:
    """Provider options for a typed graph, under ONNX Runtime's names; empty for the CPU.

    TF32 is off for fp32, as in mvde's own engines. TensorRT may use the graph's precisions only, and caches its engines
    in a folder per graph and ONNX Runtime version (the library itself checks GPU and TensorRT version). The graph file
    is hashed for that unless ``graph_sha256`` is given.
    """
    match provider:
        case Provider.CPU:
            return {}
        case Provider.CUDA:
            return {"use_tf32": "0"} if precision is Precision.FP32 else {}
        case Provider.TENSORRT:
            folder = str(cache_folder(graph_sha256 or sha256_file(graph), version))
            return {
                **{f"trt_{name}_enable": "1" for name in _tensorrt_arithmetic(precision)},
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": folder,
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": folder,
            }


def cache_folder(graph_sha256: str, version: str) -> Path:
    """Folder for TensorRT's cached engines of a graph, in the user's cache folder; created if missing."""
    digest = hashlib.sha256(f"{version} {graph_sha256}".encode()).hexdigest()[:16]
    folder = tensorrt_cache_dir() / "onnxruntime" / digest
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_all_products_on_provider(profile: list[dict[str, Any]], provider: str, products: Collection[str]) -> None:
    """Raise :class:`BackendError` naming products of a profiled run that did not run on ``provider``.

    ``products`` are the operators to check (matrix, convolution, attention). ONNX Runtime silently falls back to the
    next provider, and finally the CPU, for nodes that a provider does not support.
    """
    elsewhere = sorted(
        {
            f"{event.get('name', '?').removesuffix('_kernel_time')} ({event['args'].get('provider')})"
            for event in profile
            if event.get("cat") == "Node"
            and event.get("args", {}).get("op_name") in products
            and event["args"].get("provider") not in (None, provider)
        }
    )
    if elsewhere:
        raise BackendError(
            f"ONNX Runtime ran {len(elsewhere)} products elsewhere than on {provider}: {', '.join(elsewhere[:3])}; use "
            "another --set provider=..., or export with --opset 20 if the graph has operators that it does not support"
        )


def _tensorrt_arithmetic(precision: Precision) -> tuple[str, ...]:
    """Reduced precisions that TensorRT may use for a graph, under the provider's names."""
    match precision:
        case Precision.FP32:
            return ()
        case Precision.FP16 | Precision.FP8:
            return ("fp16",)
        case Precision.BF16:
            return ("bf16",)
        case Precision.INT8:
            return ("int8", "fp16")
