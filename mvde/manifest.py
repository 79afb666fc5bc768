"""Manifests: the JSON file beside every ONNX graph and engine.

A graph has a :class:`GraphManifest`, an engine an :class:`EngineManifest`; :class:`Manifest` is their common base.
``schema_version`` and ``kind`` are the first two keys of the file, ``digest`` is the last.

The digest is the SHA-256 of the entire file with the digest's own 64 digits set to zero, in lower-case hexadecimal.
Only JSON whitespace may stand between it and the closing brace. It detects accidental changes (a flipped bit, a manual
edit, truncation), not attacks: anyone can recompute it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mvde.contract import DepthKind, FocalConvention, OutputRole, PreprocessRecord, check_focal
from mvde.errors import ManifestError
from mvde.records import EngineParity, EngineRecord, GraphParity, LoweringRecord
from mvde.schema import expect, is_name, parse_json, read_record, to_json_types
from mvde.stats import CONFIDENCE, STATS, check_stats

SCHEMA_VERSION = 2
SOURCE_KINDS = ("mvde", "transformers", "onnx")
"""Where the network of an artefact came from: a checkpoint of mvde, a model of transformers, somebody's ONNX file."""

MAX_MANIFEST_BYTES = 16 << 20
"""Size limit. Manifests have about 10 kB, or 1 MB with all candidates of a long tuning run."""

MAX_NAME_LENGTH = 128
"""Longest name of a model or tensor, in characters: leaves room for size, precision and suffix in a file name."""

NAME_RULE = f"letters, digits, '.', '-' and '_', at most {MAX_NAME_LENGTH}"

_MAX_FILE_NAME_LENGTH = 255
_MAX_SIDE, _MAX_PIXELS = 1 << 16, 1 << 30  # products of sizes must not overflow
_MAX_DEPTH = 1e9

_ZEROS = "0" * 64
_DIGEST = re.compile(rb'("digest"[ \t\r\n]*:[ \t\r\n]*")([0-9a-f]{64})("[ \t\r\n]*\}[ \t\r\n]*)\Z')


@dataclass(frozen=True)
class InputSpec:
    """An input tensor: ``shape`` in ``layout`` order (``"BHWC"``), ``colour`` is ``"RGB"``."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    colour: str


@dataclass(frozen=True)
class OutputSpec:
    """An output tensor; ``threshold`` is that of a mask (see :class:`OutputRole`)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: OutputRole
    threshold: float | None = None


@dataclass(frozen=True)
class FileRecord:
    """A file beside the manifest: bare name, SHA-256 (64 hexadecimal digits), size in bytes."""

    name: str
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        is_hash = bool(re.fullmatch("[0-9a-f]{64}", self.sha256))
        expect(is_name(self.name, _MAX_FILE_NAME_LENGTH), "file.name", self.name, "a bare file name")
        expect(is_hash, "file.sha256", self.sha256, "64 hexadecimal digits")
        expect(self.size_bytes >= 0, "file.size_bytes", self.size_bytes, "a size in bytes")


@dataclass(frozen=True)
class SourceRecord:
    """What an artefact was made from.

    ``kind`` is one of ``SOURCE_KINDS``, ``name`` a hub name or a bare file or folder name (never a local path),
    ``revision`` the hub's, ``licence`` as the model's page states it, ``sha256`` that of the weights or the ONNX file,
    ``config`` the model's own configuration.
    """

    kind: str
    name: str
    sha256: str
    config: dict[str, Any]
    revision: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        expect(self.kind in SOURCE_KINDS, "source.kind", self.kind, f"one of {', '.join(SOURCE_KINDS)}")
        is_local = self.name.startswith(("/", ".", "~")) or "\\" in self.name or self.name.count("/") > 1
        expect(bool(self.name) and not is_local, "source.name", self.name, "a hub name or a bare name, not a path")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Fields common to graphs and engines: inputs, outputs and provenance.

    ``depth_kind`` and ``unit`` say what the map's numbers are, ``valid_range`` (min, max) what the network can say, in
    that unit and before any focal factor; ``canonical_focal`` is the focal length that the map's metres are for, in
    ``focal_convention``. ``grid`` is (rows, columns) of patches of ``stats_patch`` pixels, ``stats`` the default
    columns, ``companions`` further files that the artefact needs (ONNX external data, OpenVINO weights); ``lowering``
    is there for typed graphs and the engines that were built from one. ``num_flops`` are the floating-point operations
    of the exported graph's products in one call (``None`` where they were not counted).
    """

    kind: ClassVar[str]

    name: str
    created: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    depth_kind: DepthKind
    unit: str
    valid_range: tuple[float, float]
    preprocess: PreprocessRecord
    stats_patch: int
    grid: tuple[int, int]
    stats: tuple[str, ...]
    opset: int
    source: SourceRecord
    file: FileRecord
    tools: dict[str, str]
    canonical_focal: float | None = None
    focal_convention: FocalConvention | None = None
    companions: tuple[FileRecord, ...] = ()
    lowering: LoweringRecord | None = None
    num_flops: int | None = None

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        expect(self.unit == self.depth_kind.unit, "unit", self.unit, f"{self.depth_kind.unit} of {self.depth_kind}")
        check_focal(self.depth_kind, self.canonical_focal, self.focal_convention)
        self._check_tensors()
        self._check_values()

    def _check_tensors(self) -> None:
        shapes = [spec.shape for spec in self.inputs] + [spec.shape for spec in self.outputs]
        expect(len(self.inputs) == 1, "inputs", len(self.inputs), "one image input")
        expect(len(self.outputs) >= 1, "outputs", len(self.outputs), "at least one output")
        expect(all(side > 0 for shape in shapes for side in shape), "shape", shapes, "positive sizes")
        image, batch_shape = self.inputs[0], shapes[0][:3]
        expect(len(image.shape) == 4 and image.shape[3] == 3, "inputs[0].shape", image.shape, "[B, H, W, 3]")
        is_bounded = max(batch_shape) <= _MAX_SIDE and math.prod(batch_shape) <= _MAX_PIXELS
        limits = f"sides up to {_MAX_SIDE} and at most {_MAX_PIXELS} pixels in a call"
        expect(is_bounded, "inputs[0].shape", image.shape, limits)
        _check_name("inputs[0].name", image.name)
        expect(image.dtype == "uint8", "inputs[0].dtype", image.dtype, "uint8")
        expect(image.layout == "BHWC", "inputs[0].layout", image.layout, "BHWC")
        expect(image.colour == "RGB", "inputs[0].colour", image.colour, "RGB")
        for number, output in enumerate(self.outputs):
            key = f"outputs[{number}]"
            _check_name(f"{key}.name", output.name)
            expect(output.dtype == "float32", f"{key}.dtype", output.dtype, "float32")
            expected = f"{batch_shape}, batch, height and width of the input"
            expect(output.shape == batch_shape, f"{key}.shape", output.shape, expected)
            has_threshold = output.threshold is not None and math.isfinite(output.threshold)
            needs = "a finite number" if output.role.has_threshold else f"none for {output.role}"
            expect(
                has_threshold if output.role.has_threshold else output.threshold is None,
                f"{key}.threshold",
                output.threshold,
                needs,
            )
        roles = [output.role for output in self.outputs]
        expect(roles[0] is OutputRole.DEPTH, "outputs[0].role", roles[0].value, OutputRole.DEPTH.value)
        expect(len(set(roles)) == len(roles), "outputs", [role.value for role in roles], "each role once")

    def _check_values(self) -> None:
        low, high = self.valid_range
        expect(self.stats_patch > 0, "stats_patch", self.stats_patch, "a positive size in pixels")
        grid = tuple(side / self.stats_patch for side in self.resolution)
        expect(grid == self.grid, "grid", self.grid, f"{grid}, the input's size divided by stats_patch")
        known = (*STATS, CONFIDENCE) if self.has_confidence else STATS
        are_known = 0 < len(self.stats) == len(set(self.stats)) and set(self.stats) <= set(known)
        expect(are_known, "stats", self.stats, f"some of {', '.join(known)}, each once")
        expect(self.num_flops is None or self.num_flops > 0, "num_flops", self.num_flops, "a positive number")
        expect(0 <= low < high, "valid_range", self.valid_range, "0 <= min < max")
        expect(high <= _MAX_DEPTH, "valid_range", self.valid_range, f"at most {_MAX_DEPTH:g}")

    @property
    def batch(self) -> int:
        """Images per call."""
        return self.inputs[0].shape[0]

    @property
    def output_names(self) -> dict[OutputRole, str]:
        """Names of the output tensors by role, depth first."""
        return {output.role: output.name for output in self.outputs}

    @property
    def resolution(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        return self.inputs[0].shape[1], self.inputs[0].shape[2]

    @property
    def has_confidence(self) -> bool:
        """Whether the network gives a confidence, whose mean over a patch is the statistic ``conf``."""
        return OutputRole.CONFIDENCE in self.output_names

    def columns(self, stats: Sequence[str] | None) -> tuple[str, ...]:
        """Columns of statistics: ``stats``, or the manifest's own for ``None``.

        Raises :class:`UsageError` for an unknown or repeated one, and for ``conf`` without a confidence output.
        """
        return self.stats if stats is None else check_stats(stats, self.has_confidence)

    def to_dict(self) -> dict[str, Any]:
        """Nested dict of JSON types without the digest; fields with default values are omitted."""
        return {"schema_version": SCHEMA_VERSION, "kind": self.kind, **to_json_types(self)}

    def to_json(self) -> str:
        """Indented JSON text with the digest and a final newline."""
        return _digested(self.to_dict())


@dataclass(frozen=True, kw_only=True)
class GraphManifest(Manifest):
    """Manifest of an ONNX graph; ``parity`` is that of the fp32 graph, also for typed graphs."""

    kind: ClassVar[str] = "onnx"

    parity: GraphParity


@dataclass(frozen=True, kw_only=True)
class EngineManifest(Manifest):
    """Manifest of an engine."""

    kind: ClassVar[str] = "engine"

    engine: EngineRecord
    parity: EngineParity


def manifest_from_bytes(content: bytes, where: str) -> GraphManifest | EngineManifest:
    """Parse a manifest file and verify its digest; ``where`` is its path in errors.

    Raises :class:`ManifestError` with the problem and its remedy.
    """
    try:
        plain = parse_json(content.decode("utf-8"))
    except RecursionError as error:
        raise ManifestError(f"{where} is nested too deeply to be a manifest") from error
    except ValueError as error:  # includes UnicodeDecodeError
        raise ManifestError(f"{where} is not valid JSON: {error}; export or build the artefact again") from error
    return _manifest(plain, where, content)


def manifest_from_dict(plain: Any, where: str = "manifest") -> GraphManifest | EngineManifest:
    """Build a manifest from parsed JSON, ignoring any digest.

    Raises :class:`ManifestError` naming the key that is missing, unknown or invalid.
    """
    return _manifest(plain, where, None)


def with_digest(text: str) -> str:
    """Recompute, or add, the digest of a manually edited manifest and return the text.

    Raises :class:`ManifestError` if the text is not JSON.
    """
    content = text.encode("utf-8")
    if _DIGEST.search(content) is not None:
        return _stamped(content)
    try:
        plain = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is not valid JSON: {error}; export or build the artefact again") from error
    if not isinstance(plain, dict):
        raise ManifestError(f"a manifest is an object, but got {type(plain).__name__}")
    return _digested(plain)


def _manifest(plain: Any, where: str, content: bytes | None) -> GraphManifest | EngineManifest:
    if not isinstance(plain, dict) or "schema_version" not in plain:
        raise ManifestError(f"{where} is not a manifest of mvde: it has no schema_version")
    rest = dict(plain)
    if (version := rest.pop("schema_version")) != SCHEMA_VERSION or type(version) is not int:
        raise ManifestError(
            f"{where} has schema_version {version!r}, but this mvde reads {SCHEMA_VERSION}; "
            "upgrade mvde, or export or build the artefact again"
        )
    if content is not None:
        _check_digest(content, rest, where)
    rest.pop("digest", None)
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


def _check_digest(content: bytes, plain: dict[str, Any], where: str) -> None:
    rewrite = f"`mvde info --rewrite-digest {where}`"
    if "digest" not in plain:
        raise ManifestError(
            f"{where}: the key digest is missing; export or build the artefact again, or after an edit by hand run "
            f"{rewrite}"
        )
    if _DIGEST.search(content) is None or _stamped(content).encode("utf-8") != content:
        raise ManifestError(
            f"{where}: its digest does not fit its content: it was damaged, or edited by hand; copy it again, or after "
            f"an edit run {rewrite}"
        )


def _digested(plain: dict[str, Any]) -> str:
    """Serialise a manifest to JSON with its digest as the last key."""
    rest = {key: value for key, value in plain.items() if key != "digest"}
    text = json.dumps({**rest, "digest": _ZEROS}, indent=2, ensure_ascii=False) + "\n"
    try:
        return _stamped(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ManifestError(f"a text of the manifest is not Unicode: {error.object[error.start :][:20]!r}") from error


def _stamped(content: bytes) -> str:
    """Replace the digest at the end of a manifest's text by the actual one."""
    zeroed = _DIGEST.sub(rb"\g<1>" + _ZEROS.encode() + rb"\g<3>", content)
    return _DIGEST.sub(rb"\g<1>" + hashlib.sha256(zeroed).hexdigest().encode() + rb"\g<3>", zeroed).decode("utf-8")


def is_model_name(name: str) -> bool:
    """Whether ``name`` is valid for a model or tensor: it becomes part of paths and of other programs' files."""
    return is_name(name, MAX_NAME_LENGTH)


def _check_name(key: str, name: str) -> None:
    expect(is_model_name(name), key, name, NAME_RULE)


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of mvde and of the given distributions, for ``tools``; those not installed are omitted."""
    from importlib.metadata import PackageNotFoundError, version

    from mvde import __version__

    found = {"mvde": __version__}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
