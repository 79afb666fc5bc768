"""Running a graph in ONNX Runtime on the CPU, for depth or for intermediate tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import one_line
from mvde.engines.onnxruntime.session import AS_WRITTEN, SessionSettings, open_session
from mvde.errors import BackendError

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

MAX_TENSOR_BYTES = 1_000_000_000
"""Limit on intermediate tensors fetched in one run; larger models are run several times."""


class GraphSession:
    """Graph in an ONNX Runtime CPU session. Raises :class:`BackendError` if the library rejects it."""

    def __init__(self, model: ir.Model | Path, settings: SessionSettings = AS_WRITTEN) -> None:
        """Open a session for ``model``, a graph in memory or a file."""
        self._what = f"the exported graph {model.name}" if isinstance(model, Path) else "the typed graph"
        given = model if isinstance(model, Path) else _serialized(model)
        self._session = open_session(given, settings, what=self._what, extra="export", purpose=f"running {self._what}")
        self._input = self._session.get_inputs()[0]

    @property
    def batch(self) -> int:
        """Images per run."""
        return int(self._input.shape[0])

    def depth(
        self, images: NDArray[np.uint8], feeds: Sequence[Mapping[str, NDArray[np.float32]]] | None = None
    ) -> NDArray[np.float32]:
        """Depth (K, H, W) float32 of images (K, H, W, 3) uint8; the last batch is padded by repetition.

        ``feeds`` holds the values of the graph's other inputs, if any, per batch.
        """
        import numpy as np

        others = feeds or [{}] * len(images)
        batches = [self._run([], batch, other)[0] for batch, other in zip(self._batches(images), others, strict=False)]
        depth: NDArray[np.float32] = np.concatenate(batches)[: len(images)]
        return depth

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield intermediate tensors by name, one batch of images at a time."""
        for batch in self._batches(images):
            yield dict(zip(names, self._run(names, batch), strict=True))

    def _run(
        self, names: Sequence[str], batch: NDArray[np.uint8], others: Mapping[str, NDArray[np.float32]] | None = None
    ) -> list[Any]:
        try:
            return list(self._session.run(list(names) or None, {self._input.name: batch, **(others or {})}))
        except Exception as error:  # the library's exceptions share no public base class
            raise BackendError(f"ONNX Runtime failed to run {self._what}: {one_line(error)}") from error

    def _batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        import numpy as np

        for start in range(0, len(images), self.batch):
            chunk = images[start : start + self.batch]
            yield np.concatenate([chunk, np.repeat(chunk[-1:], self.batch - len(chunk), axis=0)])


def largest_magnitudes(model: ir.Model, nodes: Collection[str], images: NDArray[np.uint8]) -> dict[str, float]:
    """Largest magnitude of each named node's output over images.

    It is reduced inside the graph, because a large model's activations would exhaust memory.
    """
    import onnx_ir as ir

    copy = model.clone()
    ends: list[str] = []
    copy.graph.outputs.clear()
    for node in [node for node in copy.graph if node.name in set(nodes)]:
        for op in ("ReduceMin", "ReduceMax"):
            end = ir.Value(name=f"{node.name}.{op}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(()))
            keep = [ir.AttrInt64("keepdims", 0)]
            copy.graph.insert_after(node, ir.Node("", op, [node.outputs[0]], keep, outputs=[end]))
            copy.graph.outputs.append(end)
            ends.append(str(end.name))
    largest: dict[str, float] = {}
    for tensors in GraphSession(copy).tensors(images, ends):
        for name, tensor in tensors.items():
            node_name = name.rpartition(".")[0]
            largest[node_name] = max(largest.get(node_name, 0.0), abs(float(tensor)))
    return largest


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Copy of a graph whose outputs are the named tensors."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    RemoveUnusedNodesPass()(copy)  # onnxruntime computes unused nodes otherwise
    return copy


def split_by_bytes(model: ir.Model, names: Sequence[str], limit: int = MAX_TENSOR_BYTES) -> list[list[str]]:
    """Names in groups whose float32 tensors total at most ``limit`` bytes (or are a single tensor)."""
    import math

    sizes = {
        value.name: 4 * math.prod(value.shape.numpy())
        for node in model.graph
        for value in node.outputs
        if value.shape is not None and value.name in set(names)
    }
    runs: list[list[str]] = []
    total = limit
    for name in names:
        size = sizes.get(name, 0)
        if total + size > limit:
            runs.append([])
            total = 0
        runs[-1].append(name)
        total += size
    return runs


def _serialized(model: ir.Model) -> bytes:
    import onnx_ir as ir

    from mvde.export.graph.save import MAX_INLINE_BYTES

    size_bytes = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    if size_bytes > MAX_INLINE_BYTES:
        raise BackendError(
            f"the graph holds {size_bytes / 1e9:.1f} GB of weights; mvde lowers graphs of up to "
            f"{MAX_INLINE_BYTES / 1e9:.1f} GB"
        )
    data: bytes = ir.to_proto(model).SerializeToString()
    return data
