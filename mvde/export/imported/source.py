"""Reading of a third-party ONNX file: sizes, external data, versions and weights are checked before it is used."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import one_line
from mvde.errors import ArtifactError, MissingDependencyError, UsageError
from mvde.files import sha256_file

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

OPSETS = range(11, 24)
"""Opsets of files that can be imported."""

_MAX_MESSAGE_BYTES = (1 << 31) - 1  # protobuf's limit
_SMALL_BYTES = 1 << 16  # shapes, scales and biases


@dataclass(frozen=True)
class SourceFile:
    """A checked ONNX file; ``external`` are the files of its external data, with their SHA-256, by bare name."""

    path: Path
    sha256: str
    external: dict[str, str]
    opset: int
    size_bytes: int

    def load(self) -> ir.Model:
        """Graph of the file, with weights read on demand, initializers that are no inputs, and functions inlined."""
        import onnx_ir as ir
        from onnx_ir.passes import common

        model = ir.load(self.path)
        for run in (common.RemoveInitializersFromInputsPass(), common.InlinePass()):
            model = run(model).model
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.TopologicalSortPass()(model)  # converters to fp16 append their casts at the end
        _take_small_external(model)
        versions = model.graph.opset_imports
        versions[""] = versions.pop("ai.onnx", versions.get("", self.opset))
        for number, node in enumerate(model.graph.all_nodes()):
            node.name = node.name or f"{node.op_type}_{number}"
            node.domain = "" if node.domain == "ai.onnx" else node.domain
        return model


def _take_small_external(model: ir.Model) -> None:
    """Read small external tensors, whose values shape inference needs; large ones stay in their file."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= _SMALL_BYTES:
            value.const_value = ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)


def read_source(path: Path) -> SourceFile:
    """Check the file at ``path`` and everything that it refers to, without loading its external data.

    Raises :class:`ArtifactError` for a file that is missing, truncated or no ONNX graph, whose external data is not
    beside it or has another length, which was made for another opset or has NaN among its weights;
    :class:`MissingDependencyError` without the packages of the extra ``export``.
    """
    require_packages()
    proto = _parsed(path)
    opset = _opset(proto, path)
    tensors = list(_tensors(proto))
    external = sorted({_external_name(tensor, path) for tensor in tensors if _is_external(tensor)})
    for tensor in tensors:
        _check_size(tensor, path)
    size_bytes = path.stat().st_size + sum((path.parent / name).stat().st_size for name in external)
    _check_numbers(path)
    hashes = {name: sha256_file(path.parent / name) for name in external}
    return SourceFile(path, sha256_file(path), hashes, opset, size_bytes)


def require_packages() -> None:
    """Raise :class:`MissingDependencyError` unless the packages that importing needs are installed."""
    import importlib.util

    for package in ("onnx", "onnx_ir", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError.for_extra(package, "export", "importing an ONNX file")


def _parsed(path: Path) -> onnx.ModelProto:
    """Message of the file, without its external data."""
    import onnx

    try:
        status = path.stat()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{path} is not a regular file; give an ONNX file")
    if status.st_size > _MAX_MESSAGE_BYTES:
        raise ArtifactError(
            f"{path} has {status.st_size / 1e9:.1f} GB in one file, but an ONNX message ends at 2 GB; save it with "
            "external data: onnx.save_model(model, path, save_as_external_data=True)"
        )
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's exceptions share no public base class
        raise ArtifactError(f"{path} is not an ONNX file, or truncated: {one_line(error)}") from error
    if not proto.graph.node or not proto.opset_import:
        raise ArtifactError(f"{path} is not an ONNX file, or truncated: it has no graph")
    return proto


def _opset(proto: onnx.ModelProto, path: Path) -> int:
    import onnx

    found = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if found not in OPSETS:
        age = "too new" if found > OPSETS[-1] else "too old"
        raise ArtifactError(
            f"{path} has opset {found}, which is {age}: mvde imports opsets {OPSETS[0]} to {OPSETS[-1]}; "
            f"export it again with opset {OPSETS[-1] if found > OPSETS[-1] else 17}"
        )
    if proto.ir_version > onnx.IR_VERSION:
        raise ArtifactError(
            f"{path} has IR version {proto.ir_version}, newer than {onnx.IR_VERSION} of the installed onnx "
            f"{onnx.__version__}; upgrade onnx, or export the file again with an older one"
        )
    return int(found)


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the file: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graph_tensors(graph)


def _is_external(tensor: onnx.TensorProto) -> bool:
    import onnx

    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _external_name(tensor: onnx.TensorProto, path: Path) -> str:
    """Name of the file that holds the tensor's data. Raises :class:`ArtifactError` unless it lies beside ``path``."""
    stated = {entry.key: entry.value for entry in tensor.external_data}
    name = str(stated.get("location", ""))
    where = f"the external data of tensor {tensor.name!r} in {path} is {name!r}"
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
        raise ArtifactError(f"{where}, which does not lie in the file's folder; it must be a bare file name beside it")
    file = path.parent / name
    if len(Path(name).parts) != 1 or file.is_symlink():
        raise ArtifactError(
            f"{where}, a link or a folder's file that may lead elsewhere; copy the file itself beside {path.name}"
        )
    if not file.is_file():
        raise ArtifactError(f"{where}, which is missing; copy it beside {path.name}")
    try:
        offset, length = int(stated.get("offset", 0)), int(stated.get("length", _num_bytes(tensor)))
    except ValueError as error:
        raise ArtifactError(f"{where}, but its offset or length is not a number: {error}") from error
    size = file.stat().st_size
    if offset < 0 or length != _num_bytes(tensor) or offset + length > size:
        raise ArtifactError(
            f"{where}: {length} bytes from {offset} are stated, but the tensor has {_num_bytes(tensor)} bytes and the "
            f"file {size}; it is truncated or of another export: copy it again"
        )
    return name


def _num_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's content; dimensions that are negative count as wrong (-1)."""
    import math

    import onnx_ir as ir

    if any(side < 0 for side in tensor.dims) or tensor.data_type not in _dtypes():
        return -1
    bits = math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
    return int(-(-bits // 8))


def _dtypes() -> set[int]:
    """Numbers of the dtypes that tensors may have."""
    import onnx_ir as ir

    return {int(dtype) for dtype in ir.DataType} - {int(ir.DataType.UNDEFINED), int(ir.DataType.STRING)}


def _check_size(tensor: onnx.TensorProto, path: Path) -> None:
    """Raise :class:`ArtifactError` if a tensor inside the file has another size than it states."""
    if _is_external(tensor) or not tensor.HasField("raw_data"):
        return
    if len(tensor.raw_data) != _num_bytes(tensor):
        raise ArtifactError(
            f"tensor {tensor.name!r} in {path} has {len(tensor.raw_data)} bytes, but its shape "
            f"{list(tensor.dims)} needs {_num_bytes(tensor)}: the file is damaged; copy or export it again"
        )


def _check_numbers(path: Path) -> None:
    """Raise :class:`ArtifactError` naming a weight that is not a number; infinities occur in masks."""
    import numpy as np
    import onnx_ir as ir

    try:
        model = ir.load(path)
    except Exception as error:  # the library's exceptions share no public base class
        raise ArtifactError(f"{path} is not an ONNX graph: {one_line(error)}") from error
    graphs = [model.graph, *model.graph.subgraphs()]
    nodes = [*model.graph.all_nodes(), *(node for each in model.functions.values() for node in each.all_nodes())]
    values = [(str(value.name), value.const_value) for graph in graphs for value in graph.initializers.values()]
    values += [
        (str(node.name or node.outputs[0].name), attribute.as_tensor())
        for node in nodes
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref()
    ]
    for name, tensor in values:
        if tensor is None or not tensor.dtype.is_floating_point() or tensor.dtype.bitwidth < 16:
            continue
        try:
            array = tensor.numpy()
        except Exception as error:  # as above
            raise ArtifactError(f"tensor {name!r} in {path} is damaged: {one_line(error)}; export it again") from error
        if bool(np.isnan(array.astype(np.float32) if tensor.dtype.bitwidth == 16 else array).any()):
            raise ArtifactError(
                f"the weight {name!r} in {path} contains NaN, which would reach every pixel; the file is damaged "
                "or its training diverged: take another one"
            )


def check_memory(needed_bytes: int, what: str) -> None:
    """Raise :class:`UsageError` if ``what`` needs more memory than this machine has available."""
    available = available_bytes()
    if available is not None and needed_bytes > available:
        raise UsageError(
            f"{what} needs about {needed_bytes / 1e9:.1f} GB of memory, but {available / 1e9:.1f} GB are available; "
            "use a smaller --res or --batch"
        )


def available_bytes() -> int | None:
    """Memory available to this process in bytes; ``None`` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*found[:1], *_container_bytes()], default=None)


def _container_bytes() -> list[int]:
    """Memory that the container leaves, where it has a limit (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        return [int(limit) - int(used)]
    except (OSError, ValueError):  # no such files, or "max"
        return []
