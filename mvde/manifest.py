"""The manifest: what a JSON file beside every ONNX graph and engine says, read strictly."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mvde.errors import ManifestError

SCHEMA_VERSION = 1
KINDS = ("onnx", "engine")
DEPTH_KINDS = ("metric", "relative")

T = TypeVar("T")


@dataclass(frozen=True)
class InputSpec:
    """An input tensor: ``shape`` in the order of ``layout`` (``"BHWC"``), ``colour`` is ``"RGB"``."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    colour: str


@dataclass(frozen=True)
class OutputSpec:
    """An output tensor; ``unit`` is ``"m"`` for metric depth and ``"relative"`` for scale-invariant depth."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    unit: str


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation on the [0, 1] scale; ``folded`` says the graph applies them itself."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    folded: bool


@dataclass(frozen=True)
class FileRecord:
    """A file in the manifest's folder: bare name, SHA-256 (64 hexadecimal digits), size in bytes."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class SourceRecord:
    """What an artefact was made from: the weights' SHA-256 and the whole configuration."""

    checkpoint_sha256: str
    config: dict[str, Any]


@dataclass(frozen=True)
class EngineRecord:
    """What an engine runs on: ``executed_precision`` is what the backend reports, not what was asked for.

    ``facts`` are what only one backend has to say (TensorRT: CUDA, compute capabilities, the parsed network).
    """

    id: str
    backend: str
    precision: str
    executed_precision: str
    device: str
    library_version: str
    cpu_features: tuple[str, ...]
    options: dict[str, Any]
    onnx_sha256: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KeptNodes:
    """Nodes that a typed graph computes in a higher precision: ``group`` names them, ``reason`` says what was measured.

    ``dtype`` is the one they compute in (``"fp32"``, ``"fp16"``), ``num_nodes`` how many they are.
    """

    group: str
    dtype: str
    num_nodes: int
    reason: str


@dataclass(frozen=True)
class CalibrationRecord:
    """The images that decided a typed graph: how many, the SHA-256 of their pixels, how ranges were taken of them.

    ``method`` is ``"none"`` where no range is stored in the graph (fp16, bf16). ``balanced`` says, for each kind of
    activation whose channels can be rescaled into the weights, whether that was done and what it measured.
    """

    num_images: int
    sha256: str
    method: str
    balanced: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PrecisionRecord:
    """What a typed graph promises, for whoever parses it to compare with what was parsed.

    ``onnx_sha256`` is that of the fp32 graph it was made from. ``num_by_dtype`` counts the nodes that compute on real
    numbers by what they compute in (``"fp32"``, ``"fp16"``, ``"bf16"``; ``"int8"`` and ``"fp8"`` for products whose
    operands are both quantised); casts, constants and Q/DQ nodes are in none. ``num_attention`` counts ``Attention``
    nodes, or the Softmax between two products where the opset lacks them; ``num_layer_norm`` counts
    ``LayerNormalization``. ``kept`` says what was left higher than asked for, and why; ``gate`` is what was measured
    against the fp32 graph on images that the calibration did not see.
    """

    precision: str
    onnx_sha256: str
    num_by_dtype: dict[str, int]
    num_attention: int
    num_layer_norm: int
    kept: tuple[KeptNodes, ...] = ()
    calibration: CalibrationRecord | None = None
    gate: dict[str, Any] = field(default_factory=dict)

    def share(self, dtype: str) -> float:
        """Fraction (0 to 1) of the computing nodes that compute in ``dtype``."""
        return self.num_by_dtype.get(dtype, 0) / max(1, sum(self.num_by_dtype.values()))


@dataclass(frozen=True)
class Manifest:
    """Everything needed to feed an artefact and to trust it.

    ``grid`` is (rows, columns) of patches, ``depth_range_m`` (min, max) in metres, ``stats`` the default columns,
    ``companions`` further files that the artefact needs (ONNX external data, OpenVINO weights), ``parity`` the measured
    difference from the stage before; ``precision`` is there for typed graphs and the engines that were built from one.
    ``num_flops`` are the floating-point operations of the exported graph's products in one call (``None`` where it was
    exported before they were counted).
    """

    kind: str
    name: str
    created: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    normalization: Normalization
    patch_size: int
    grid: tuple[int, int]
    depth_range_m: tuple[float, float]
    depth_kind: str
    stats: tuple[str, ...]
    opset: int
    source: SourceRecord
    file: FileRecord
    tools: dict[str, str]
    parity: dict[str, Any]
    companions: tuple[FileRecord, ...] = ()
    engine: EngineRecord | None = None
    precision: PrecisionRecord | None = None
    num_flops: int | None = None
    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)

    @property
    def batch(self) -> int:
        """Images per call."""
        return self.inputs[0].shape[0]

    @property
    def resolution(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        return self.inputs[0].shape[1], self.inputs[0].shape[2]

    @property
    def canonical_focal(self) -> float | None:
        """Relative focal length of the camera that metres are for (see :mod:`mvde.camera`), where there is one."""
        decoder = self.source.config.get("decoder")
        focal = decoder.get("canonical_focal") if isinstance(decoder, dict) else None
        return float(focal) if isinstance(focal, int | float) and focal > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Nested dict of JSON types; the optional parts only where there are some."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))
        plain = {"schema_version": plain.pop("schema_version"), **plain}
        for key in ("engine", "companions", "precision", "num_flops"):
            if not plain[key]:
                del plain[key]
        if "engine" in plain and not plain["engine"]["facts"]:
            del plain["engine"]["facts"]
        return plain

    def to_json(self) -> str:
        """Indented JSON text with a final newline."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, plain: Any, where: str = "manifest") -> Manifest:
        """Manifest from parsed JSON. Raises :class:`ManifestError` naming the key that is missing, unknown or wrong."""
        if not isinstance(plain, dict) or "schema_version" not in plain:
            raise ManifestError(f"{where} is not a manifest of mvde: it has no schema_version")
        version = plain["schema_version"]
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"{where} has schema_version {version!r}, but this mvde reads {SCHEMA_VERSION}; "
                "upgrade mvde, or export or build the artefact again"
            )
        manifest = _read(cls, plain, where, "")
        manifest._check(where)
        return manifest

    def _check(self, where: str) -> None:
        """Nothing, if the values fit together; readers rely on this and do not check again."""
        depth_range_m = self.depth_range_m
        sizes = [spec.shape for spec in self.inputs] + [spec.shape for spec in self.outputs]
        _expect(self.kind in KINDS, where, "kind", self.kind, f"one of {', '.join(KINDS)}")
        _expect(
            self.depth_kind in DEPTH_KINDS, where, "depth_kind", self.depth_kind, f"one of {', '.join(DEPTH_KINDS)}"
        )
        is_engine = self.engine is not None
        _expect(
            is_engine == (self.kind == "engine"), where, "engine", is_engine, "a record for engines, and only there"
        )
        _expect(len(self.inputs) == 1, where, "inputs", len(self.inputs), "one image input")
        _expect(len(self.outputs) >= 1, where, "outputs", len(self.outputs), "at least one output")
        _expect(all(side > 0 for shape in sizes for side in shape), where, "shape", sizes, "positive sizes")
        _expect(len(sizes[0]) == 4 and sizes[0][3] == 3, where, "inputs[0].shape", sizes[0], "[B, H, W, 3]")
        _expect(self.patch_size > 0, where, "patch_size", self.patch_size, "a positive size in pixels")
        grid = tuple(side / self.patch_size for side in self.resolution)
        _expect(grid == self.grid, where, "grid", self.grid, f"{grid}, the input's size divided by patch_size")
        _expect(self.num_flops is None or self.num_flops > 0, where, "num_flops", self.num_flops, "a positive number")
        _expect(0 <= depth_range_m[0] < depth_range_m[1], where, "depth_range_m", depth_range_m, "0 <= min < max")
        for record in (self.file, *self.companions):
            _check_file(record, where)


def _check_file(record: FileRecord, where: str) -> None:
    is_hash = bool(re.fullmatch("[0-9a-f]{64}", record.sha256))
    _expect(_is_bare(record.name), where, "file.name", record.name, "a bare file name")
    _expect(is_hash, where, "file.sha256", record.sha256, "64 hexadecimal digits")
    _expect(record.size_bytes >= 0, where, "file.size_bytes", record.size_bytes, "a size in bytes")


def _is_bare(name: str) -> bool:
    """Whether a name stays in its folder."""
    return bool(name) and name not in {".", ".."} and not re.search(r"[/\\\0]", name)


def _expect(holds: bool, where: str, key: str, got: object, expected: str) -> None:
    if not holds:
        raise ManifestError(f"{where}: {key} is {got!r}, but expected {expected}")


def _read(kind: type[T], plain: Any, where: str, prefix: str) -> T:
    """Dataclass from a mapping with exactly its keys (those with a default may be missing)."""
    if not isinstance(plain, dict):
        raise ManifestError(f"{where}: {prefix or 'the manifest'} must be an object, but got {type(plain).__name__}")
    specs = {spec.name: spec for spec in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in plain:
        if key not in specs:
            raise ManifestError(f"{where}: unknown key {prefix}{key}; known keys: {', '.join(specs)}")
    values = {}
    for name, spec in specs.items():
        if name in plain:
            values[name] = _convert(hints[name], plain[name], where, prefix + name)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ManifestError(f"{where}: the key {prefix}{name} is missing; export or build the artefact again")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """``value`` as the annotated type, without any coercion but int → float and list → tuple."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else _convert(arguments[0], value, where, key)
    if dataclasses.is_dataclass(hint):
        return _read(typing.cast("type[Any]", hint), value, where, f"{key}.")
    if origin is tuple:
        return _convert_tuple(arguments, value, where, key)
    if hint is float and type(value) is int:
        return float(value)
    expected: Any = origin or hint
    if type(value) is not expected:
        raise ManifestError(f"{where}: {key} must be {expected.__name__}, but got {type(value).__name__} {value!r}")
    if origin is dict and arguments[1] is not Any:
        return {name: _convert(arguments[1], item, where, f"{key}.{name}") for name, item in value.items()}
    return value


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str, key: str) -> tuple[Any, ...]:
    num_fixed = None if arguments[-1] is Ellipsis else len(arguments)
    if not isinstance(value, list) or (num_fixed is not None and len(value) != num_fixed):
        wanted = "a list" if num_fixed is None else f"a list of {num_fixed}"
        raise ManifestError(f"{where}: {key} must be {wanted}, but got {value!r}")
    return tuple(_convert(arguments[0], item, where, f"{key}[{index}]") for index, item in enumerate(value))


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Version of mvde and of each distribution that is installed, for ``tools``; others are left out."""
    from importlib.metadata import PackageNotFoundError, version

    from mvde import __version__

    found = {"mvde": __version__}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
