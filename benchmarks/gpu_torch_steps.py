"""Steps of gpu_acceptance.py that use torch: device arrays, statistics in torch, and an engine of torch's kernels."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from mvde.contract import OutputRole
from mvde.cuda.array import DeviceArray, view_of
from mvde.cuda.postprocess import DeviceMap, PostprocessOptions, postprocess_params
from mvde.engines.base import EngineInfo
from mvde.errors import MissingDependencyError
from mvde.precision import Precision
from mvde.stats import numpy_patch_stats

COLUMNS = ("mean", "var", "grad")
_PATCH, _RUNS = 16, 30
_COMPILED_SHAPES = ((4, 448, 448), (1, 3584, 3584))
"""Shapes that torch.compile is measured on; each takes it ten seconds and more."""


def plain_statistics(depth: Any, patch: int) -> Any:
    """Mean, variance and slope per patch, (B, N, 3), of depth (B, H, W), as one would write them in torch."""
    import torch

    valid = torch.isfinite(depth) & (depth > 0)
    known = torch.where(valid, depth, 0.0)
    padded = torch.nn.functional.pad(known[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    ok = torch.nn.functional.pad(valid[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0] > 0
    gx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) * 0.5 * (ok[:, 1:-1, 2:] & ok[:, 1:-1, :-2])
    gy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) * 0.5 * (ok[:, 2:, 1:-1] & ok[:, :-2, 1:-1])

    def patches(values: Any) -> Any:
        batch, height, width = values.shape
        tiled = values.reshape(batch, height // patch, patch, width // patch, patch).transpose(2, 3)
        return tiled.reshape(batch, -1, patch * patch)

    mask, inside = patches(valid.float()), patches(known)
    count = mask.sum(-1).clamp(min=1)
    mean = inside.sum(-1) / count
    var = (((inside - mean[..., None]) * mask) ** 2).sum(-1) / count
    slope = (patches(torch.sqrt(gx * gx + gy * gy)) * mask).sum(-1) / count
    return torch.stack([mean, var, slope], -1)


def measure_torch(device: Any) -> dict[str, Any]:
    """Time of the statistics: the kernel, plain torch, and the same under torch.compile."""
    torch = _torch()
    rows = []
    for shape in _COMPILED_SHAPES:
        depth = torch.rand(shape, device="cuda") + 1
        compiled = torch.compile(plain_statistics, dynamic=False)
        torch.testing.assert_close(compiled(depth, _PATCH), plain_statistics(depth, _PATCH), rtol=1e-4, atol=1e-6)
        kernel = device.put(depth.cpu().numpy())
        out = device.put(np.zeros((shape[0], (shape[1] // _PATCH) * (shape[2] // _PATCH), 3), np.float32))
        params = postprocess_params(
            DeviceMap(kernel.address),
            shape,
            PostprocessOptions(),
            stats_address=out.address,
            patch_size=_PATCH,
            stats=COLUMNS,
        )
        kernel_ms = device.time_ms(lambda params=params: device.postprocess(params, "float32"))
        torch_ms = _torch_ms(lambda depth=depth: plain_statistics(depth, _PATCH))
        compiled_ms = _torch_ms(lambda depth=depth, compiled=compiled: compiled(depth, _PATCH))
        times = {"kernel_us": kernel_ms, "torch_us": torch_ms, "compiled_us": compiled_ms}
        rows.append({"shape": "x".join(map(str, shape)), **{name: round(ms * 1e3, 1) for name, ms in times.items()}})
    return {"rows": rows}


def check_arrays(device: Any) -> dict[str, Any]:
    """Device arrays of torch (and CuPy) through DLPack, in and out, on the caller's stream."""
    torch = _torch()
    shape, caller = (2, 448, 448), torch.cuda.Stream()
    with torch.cuda.stream(caller):
        depth = torch.rand(shape, device="cuda")  # still being computed when the kernel is enqueued
        depth = depth * 3 + 1
        on = device.cuda.stream_of(caller.cuda_stream)
        view = view_of(depth, int(on.handle))
        out = device.cuda.allocate(2 * 28 * 28 * 3 * 4, on)
        params = postprocess_params(
            DeviceMap(view.address),
            shape,
            PostprocessOptions(),
            stats_address=out.address,
            patch_size=16,
            stats=COLUMNS,
        )
        device.kernels.enqueue(params, "float32", on)
        done = device.cuda.record(on)
        array = DeviceArray(
            out,
            (2, 784, 3),
            int(on.handle),
            make_wait=lambda handle: device.cuda.wait(device.cuda.stream_of(handle), done),
        )
    on_default = torch.from_dlpack(array).clone()  # torch's default stream has to wait for ours
    expected = numpy_patch_stats(depth.cpu().numpy(), 16, COLUMNS)
    np.testing.assert_allclose(on_default.cpu().numpy(), expected, rtol=1e-6, atol=1e-9)
    details = {"torch": torch.__version__}
    if importlib.util.find_spec("cupy") is not None:
        import cupy

        np.testing.assert_allclose(cupy.asnumpy(cupy.asarray(array)), expected, rtol=1e-6, atol=1e-9)
        details["cupy"] = cupy.__version__
    return details


class TorchPlan:
    """Torch's kernels in the place of a TensorRT plan: depth is 1 m plus the weighted sum of the colours."""

    size_bytes = 0
    weights = (0.5, 0.3, 0.2)

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape

    def bind(self, input_address: int, output_addresses: list[int]) -> None:
        """View the engine's buffers as tensors."""
        self._images = _tensor_at(input_address, (*self._shape, 3), "|u1")
        self._depth = _tensor_at(output_addresses[0], self._shape, "<f4")

    def execute(self, stream: Any) -> None:
        """Enqueue the kernels on ``stream``; nothing is allocated, so that they can be captured."""
        torch = _torch()
        with torch.cuda.stream(torch.cuda.ExternalStream(int(stream.handle))):
            self._depth.fill_(1.0)
            for channel, weight in enumerate(self.weights):
                self._depth.add_(self._images[..., channel], alpha=weight / 255)

    def is_capturable(self, stream: Any) -> bool:
        """Whether the kernels can be captured."""
        return True

    def keep_runtime_cache(self) -> None:
        """There is no cache."""

    def layers(self) -> str:
        """There is no report."""
        return "{}"

    def close(self) -> None:
        """Drop the views."""
        self._images = self._depth = None


def check_session(device: Any) -> dict[str, Any]:
    """The engine's class for TensorRT with torch's kernels as its plan: one CUDA graph of network and statistics."""
    from mvde.engines.tensorrt.engine import TensorRtEngine

    shape, image_stats = (1, 448, 448), COLUMNS
    manifest: Any = SimpleNamespace(
        grid=(28, 28), stats=image_stats, stats_patch=16, output_names={OutputRole.DEPTH: "depth"}
    )
    info = EngineInfo("torch:fp32", "torch", Precision.FP32, "fp32", "GPU", (448, 448), 1, "")
    engine = TensorRtEngine(TorchPlan(shape), device.cuda, manifest, info, device.kernels)  # type: ignore[arg-type]
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    depth, stats = engine.infer_with_stats(images)
    expected = 1 + (images.astype(np.float64) @ np.array(TorchPlan.weights)) / 255
    np.testing.assert_allclose(depth, expected, rtol=1e-6)
    np.testing.assert_allclose(stats, numpy_patch_stats(depth, 16, image_stats), rtol=1e-6, atol=1e-9)
    note, times = engine.graph_note, engine.device_times_ms(images, _RUNS)
    assert not note, note  # it was captured
    engine.close()
    return {"captured": True, "device_ms": statistics.median(times)}


TORCH_STEPS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "arrays": check_arrays,
    "session": check_session,
    "torch": measure_torch,
}


def _torch() -> Any:
    """The module. Raises :class:`MissingDependencyError`, with which the step is not run, without it or its GPU."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch is not installed") from error
    if not torch.cuda.is_available():
        raise MissingDependencyError(f"torch {torch.__version__} sees no GPU")
    return torch


def _tensor_at(address: int, shape: tuple[int, ...], typestr: str) -> Any:
    """Tensor over device memory that somebody else owns."""
    described = {"shape": shape, "typestr": typestr, "data": (address, False), "version": 3}
    return _torch().as_tensor(SimpleNamespace(__cuda_array_interface__=described), device="cuda")


def _torch_ms(work: Callable[[], Any]) -> float:
    """Median time of ``work`` in milliseconds, by torch's events."""
    torch = _torch()
    times = []
    for run in range(_RUNS + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if run >= 5:
            times.append(start.elapsed_time(end))
    return statistics.median(times)
