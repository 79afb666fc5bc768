"""PyTorch's part of an export: the model's facts, its ONNX graph and its reference depth.

Everything passed in or out is picklable, so that the same code also runs in a child process (see
:mod:`mvde.export.subprocess_exporter`).
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mvde.description import ModelDescription
from mvde.export import verify
from mvde.export.graph.flops import count_flops
from mvde.export.graph.save import save_model
from mvde.export.progress import Progress
from mvde.export.torch_graph import import_export_packages, traced
from mvde.files import sha256_file
from mvde.manifest import FileRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.export.exportable import ExportableModel


@dataclass(frozen=True)
class ModelFacts:
    """Properties of a model that are known before tracing.

    ``weights_sha256`` is the checksum of the checkpoint, or of the weights themselves where there is no file.
    """

    description: ModelDescription
    num_encoder_weights: int
    weights_sha256: str


@dataclass(frozen=True)
class GraphRequest:
    """Request to write a graph to ``path`` and to compute the model's depth of images (B, H, W, 3), uint8 RGB."""

    path: Path
    resolution: tuple[int, int]
    batch: int
    opset: int
    metadata: Mapping[str, str]
    images: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class WrittenGraph:
    """Files written, FLOPs per run, and PyTorch's depth (B, H, W), float32, of each batch of the request."""

    records: list[FileRecord]
    num_flops: int
    reference: list[NDArray[np.float32]]


@runtime_checkable
class Exporter(Protocol):
    """Source of a model's facts and graphs."""

    def facts(self) -> ModelFacts:
        """Return the model's facts. Called once, before :meth:`write`."""
        ...

    def write(self, request: GraphRequest, progress: Progress) -> WrittenGraph:
        """Write the requested graph; no memory of the model is held afterwards."""
        ...

    def close(self) -> None:
        """Stop any work in progress. Safe to call twice."""
        ...


class LocalExporter:
    """:class:`Exporter` in this process; releases the model after each graph and reloads it for the next."""

    def __init__(self, load: Callable[[], ExportableModel], checkpoint: Path | None = None) -> None:
        """Store ``load``, which returns the model, and ``checkpoint``, the file of its weights, if any."""
        self._load = load
        self._loaded: ExportableModel | None = None
        self._checkpoint = checkpoint

    def facts(self) -> ModelFacts:
        """Return the model's facts; the model stays loaded for the next graph."""
        import_export_packages()
        model = self._loaded = self._load()
        description = model.describe()
        sha256 = description.origin.sha256 if self._checkpoint is None else sha256_file(self._checkpoint)
        return ModelFacts(
            description=description,
            num_encoder_weights=model.num_encoder_weights(),
            weights_sha256=sha256 or _weights_sha256(model),
        )

    def write(self, request: GraphRequest, progress: Progress) -> WrittenGraph:
        """Write the requested graph to its path."""
        model, self._loaded = self._loaded or self._load(), None
        return_freed_memory()  # freed by loading; the exporter's libraries are not imported yet
        written = _write(model, request, progress)
        del model
        return_freed_memory()
        return written

    def close(self) -> None:
        """Release the model."""
        self._loaded = None


def return_freed_memory() -> None:
    """Return memory freed in glibc's allocator (400 MB for base) to the operating system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _write(model: ExportableModel, request: GraphRequest, progress: Progress) -> WrittenGraph:
    stem = request.path.stem
    progress(f"{stem}: computing depth in PyTorch")
    reference = verify.torch_depth(model, request.images)
    progress(f"{stem}: tracing")
    with traced(model, request.resolution, request.batch, request.opset) as graph:
        num_flops = count_flops(graph)
        progress(f"{stem}: writing")
        records = save_model(graph, request.path, request.metadata)
    return WrittenGraph(records, num_flops, reference)


def _weights_sha256(model: ExportableModel) -> str:
    """SHA-256 of the weights' names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        array: Any = tensor.detach().cpu().contiguous().numpy()
        digest.update(memoryview(array).cast("B"))
    return digest.hexdigest()
