"""The manifest: what a JSON file beside every ONNX graph and engine says.

A graph's manifest is a :class:`GraphManifest`, an engine's an :class:`EngineManifest`; what both have is
:class:`Manifest`. ``schema_version`` and ``kind`` are the first two keys of the file.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from mvde.errors import ManifestError
from mvde.records import EngineParity, EngineRecord, GraphParity, LoweringRecord
from mvde.schema import expect, read_record, to_json_types

SCHEMA_VERSION = 2
DEPTH_KINDS = ("metric", "relative")


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

    def __post_init__(self) -> None:
        is_bare = bool(self.name) and self.name not in {".", ".."} and not re.search(r"[/\\\0]", self.name)
        is_hash = bool(re.fullmatch("[0-9a-f]{64}", self.sha256))
        expect(is_bare, "file.name", self.name, "a bare file name")
        expect(is_hash, "file.sha256", self.sha256, "64 hexadecimal digits")
        expect(self.size_bytes >= 0, "file.size_bytes", self.size_bytes, "a size in bytes")


@dataclass(frozen=True)
class SourceRecord:
    """What an artefact was made from: the weights' SHA-256 and the whole configuration."""

    checkpoint_sha256: str
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What graphs and engines both state: everything needed to feed an artefact and to trust it.

    ``grid`` is (rows, columns) of patches, ``depth_range_m`` (min, max) in metres, ``stats`` the default columns,
    ``companions`` further files that the artefact needs (ONNX external data, OpenVINO weights); ``lowering`` is there
    for typed graphs and the engines that were built from one. ``num_flops`` are the floating-point operations of the
    exported graph's products in one call (``None`` where it was exported before they were counted).
    """

    kind: ClassVar[str]

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
    companions: tuple[FileRecord, ...] = ()
    lowering: LoweringRecord | None = None
    num_flops: int | None = None

    def __post_init__(self) -> None:
        low_m, high_m = self.depth_range_m
        shapes = [spec.shape for spec in self.inputs] + [spec.shape for spec in self.outputs]
        expect(self.depth_kind in DEPTH_KINDS, "depth_kind", self.depth_kind, f"one of {', '.join(DEPTH_KINDS)}")
        expect(len(self.inputs) == 1, "inputs", len(self.inputs), "one image input")
        expect(len(self.outputs) >= 1, "outputs", len(self.outputs), "at least one output")
        expect(all(side > 0 for shape in shapes for side in shape), "shape", shapes, "positive sizes")
        expect(len(shapes[0]) == 4 and shapes[0][3] == 3, "inputs[0].shape", shapes[0], "[B, H, W, 3]")
        expect(self.patch_size > 0, "patch_size", self.patch_size, "a positive size in pixels")
        grid = tuple(side / self.patch_size for side in self.resolution)
        expect(grid == self.grid, "grid", self.grid, f"{grid}, the input's size divided by patch_size")
        expect(self.num_flops is None or self.num_flops > 0, "num_flops", self.num_flops, "a positive number")
        expect(0 <= low_m < high_m, "depth_range_m", self.depth_range_m, "0 <= min < max")

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
        """Nested dict of JSON types; fields that hold their default are left out."""
        return {"schema_version": SCHEMA_VERSION, "kind": self.kind, **to_json_types(self)}

    def to_json(self) -> str:
        """Indented JSON text with a final newline."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class GraphManifest(Manifest):
    """The manifest of an ONNX graph; ``parity`` is the fp32 graph's, for typed graphs too."""

    kind: ClassVar[str] = "onnx"

    parity: GraphParity


@dataclass(frozen=True, kw_only=True)
class EngineManifest(Manifest):
    """The manifest of an engine."""

    kind: ClassVar[str] = "engine"

    engine: EngineRecord
    parity: EngineParity


def manifest_from_dict(plain: Any, where: str = "manifest") -> GraphManifest | EngineManifest:
    """Manifest from parsed JSON. Raises :class:`ManifestError` naming the key that is missing, unknown or wrong."""
    if not isinstance(plain, dict) or "schema_version" not in plain:
        raise ManifestError(f"{where} is not a manifest of mvde: it has no schema_version")
    rest = dict(plain)
    if (version := rest.pop("schema_version")) != SCHEMA_VERSION:
        raise ManifestError(
            f"{where} has schema_version {version!r}, but this mvde reads {SCHEMA_VERSION}; "
            "upgrade mvde, or export or build the artefact again"
        )
    if "kind" not in rest:
        raise ManifestError(f"{where}: the key kind is missing; export or build the artefact again")
    match rest.pop("kind"):
        case GraphManifest.kind:
            return read_record(GraphManifest, rest, where)
        case EngineManifest.kind:
            return read_record(EngineManifest, rest, where)
        case other:
            kinds = f"{GraphManifest.kind}, {EngineManifest.kind}"
            raise ManifestError(f"{where}: kind is {other!r}, but expected one of {kinds}")


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Version of mvde and of each distribution that is installed, for ``tools``; others are left out."""
    from importlib.metadata import PackageNotFoundError, version

    from mvde import __version__

    found = {"mvde": __version__}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
