"""Import of a third-party ONNX file to mvde's graph and manifest, at fixed resolutions, checked against the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde import __version__
from mvde.artifact import EXPORT_DIR, artifact_stem, write_manifest
from mvde.assets import sample_photos
from mvde.contract import OutputRole
from mvde.errors import ArtifactError, UsageError
from mvde.export import verify
from mvde.export.fold import fold_graph
from mvde.export.graph.flops import count_flops
from mvde.export.graph.save import save_model
from mvde.export.imported import check
from mvde.export.imported.contract import ImportContract, Layout, NamedOutput
from mvde.export.imported.ends import give_maps, keep_outputs, take_camera_bytes
from mvde.export.imported.halves import widen_halves
from mvde.export.imported.operators import check_operators, check_static, largest_step_bytes
from mvde.export.imported.shapes import fold_shapes, infer_shapes, raise_opset
from mvde.export.imported.source import SourceFile, check_memory, read_source
from mvde.export.imported.tensors import Pixels, find_outputs, find_pixels, fix_input, fixed_resolution
from mvde.export.onnx import OPSETS
from mvde.export.torch_graph import DEFAULT_OPSET
from mvde.manifest import (
    NAME_RULE,
    FileRecord,
    GraphManifest,
    InputSpec,
    OutputSpec,
    SourceRecord,
    installed_versions,
    is_model_name,
)
from mvde.parity import check as check_parity
from mvde.parity import compare_depth, merge_reports
from mvde.publish import staged_write
from mvde.records import GraphParity
from mvde.resolution import check_resolution
from mvde.stats import CONFIDENCE, DEFAULT_STATS

if TYPE_CHECKING:
    import onnx_ir as ir

_IR_VERSION = 10
_TOOLS = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")

_COPIES = 3
"""Copies of the weights that are held at most: the file's, the graph's, and ONNX Runtime's."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ImportRequest:
    """A file and what is known of it; ``input_name`` and ``layout`` are found where ``None``."""

    path: Path
    contract: ImportContract
    name: str
    batch: int = 1
    opset: int = DEFAULT_OPSET
    input_name: str | None = None
    layout: Layout | None = None
    photos: tuple[Path, ...] | None = None

    def __post_init__(self) -> None:
        if not is_model_name(self.name):
            raise UsageError(f"the name {self.name!r} cannot be a file name; use {NAME_RULE}")
        if self.batch < 1:
            raise UsageError(f"the batch must be at least 1, but got {self.batch}")
        if self.opset not in OPSETS:
            raise UsageError(f"opset {self.opset} cannot be written; use one of {', '.join(map(str, OPSETS))}")


@dataclass(frozen=True)
class Imported:
    """A graph that was written; ``dropped`` are outputs of the file that it does not have."""

    path: Path
    manifest: GraphManifest
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """One resolution of a request."""

    request: ImportRequest
    source: SourceFile
    pixels: Pixels
    resolution: tuple[int, int]

    @property
    def batch_shape(self) -> tuple[int, int, int]:
        """(B, H, W)."""
        return (self.request.batch, *self.resolution)


def import_onnx(
    request: ImportRequest,
    resolutions: Sequence[tuple[int, int]],
    out_dir: str | Path = EXPORT_DIR,
    progress: Progress = lambda text: None,
) -> list[Imported]:
    """Import the file of ``request`` at each of ``resolutions`` (H, W) and write the graphs with their manifests.

    The graph takes ``image`` uint8 (B, H, W, 3) RGB and returns ``depth`` float32 (B, H, W) of the contract's kind. No
    resolution means the one that the file is fixed to. Nothing is written for a resolution that fails:
    :class:`ArtifactError` for a file that cannot be used, :class:`UsageError` for options that do not fit it,
    :class:`ParityError` if the graph differs from the file.
    """
    progress(f"reading {request.path.name}")
    source = read_source(request.path)
    check_memory(_COPIES * source.size_bytes, f"{request.path} with {source.size_bytes / 1e9:.1f} GB of weights")
    model = source.load()
    check_operators(model, source.path)
    pixels = find_pixels(model, source.path, request.input_name, request.layout)
    wanted = list(dict.fromkeys(resolutions)) or [_own_resolution(model, request, pixels)]
    for resolution in wanted:
        check_resolution(resolution, request.contract.patch)
        fix_input(source.load(), source.path, pixels, request.batch, resolution)
    del model
    return [_import_one(_Job(request, source, pixels, each), Path(out_dir), progress) for each in wanted]


def _own_resolution(model: ir.Model, request: ImportRequest, pixels: Pixels) -> tuple[int, int]:
    found = fixed_resolution(model, pixels)
    if found is None:
        raise UsageError(f"{request.path} takes pictures of any size; say which with --res HxW")
    return found


def _import_one(job: _Job, out_dir: Path, progress: Progress) -> Imported:
    request, source = job.request, job.source
    stem = artifact_stem(request.name, job.resolution, request.batch)
    progress(f"{stem}: simplifying")
    model, outputs, is_half = _prepared(job)
    kept = {output.name for output in outputs}
    dropped = tuple(str(value.name) for value in source.load().graph.outputs if value.name not in kept)
    take_camera_bytes(model, job.pixels, request.contract.preprocess)
    roles = give_maps(model, outputs, job.batch_shape, request.contract.map_scale)
    _finish(model, source.path)
    num_flops = count_flops(model)
    photos = request.photos or tuple(sample_photos())
    images = verify.load_photos(photos, job.resolution, request.batch, request.contract.preprocess)
    progress(f"{stem}: running {source.path.name}")
    originals = check.original_maps(
        source, job.pixels, request.contract.preprocess, [output.name for output in outputs], images
    )
    with staged_write(out_dir, stem) as staging:
        path = staging / f"{stem}.onnx"
        records = save_model(model, path, _metadata(job))
        progress(f"{stem}: comparing")
        reference = [
            {role: maps[output.name].reshape(job.batch_shape) for role, output in zip(roles, outputs, strict=True)}
            for maps in originals
        ]
        ours = check.imported_maps(path, roles, images)
        parity = _parity(job, ours, reference, is_half, photos)
        manifest = _manifest(job, outputs, records, parity, _range(job, reference), num_flops or None)
        write_manifest(manifest, path)
    return Imported(out_dir / path.name, manifest, dropped)


def _prepared(job: _Job) -> tuple[ir.Model, list[NamedOutput], bool]:
    """The file's graph with fixed sizes in float32, the outputs to keep, and whether it was in half precision."""
    request, path = job.request, job.source.path
    model = job.source.load()
    fix_input(model, path, job.pixels, request.batch, job.resolution)
    is_half = widen_halves(model) > 0
    raise_opset(model, path, request.opset)
    fold_shapes(model, path)
    try:
        outputs = find_outputs(model, path, request.contract, job.batch_shape)
    except ArtifactError:
        check_static(model, path)  # a node whose size is open is the cause
        raise
    keep_outputs(model, [output.name for output in outputs])
    check_static(model, path)
    what = f"one step of {path} at {job.resolution[0]}x{job.resolution[1]} with batch {request.batch}"
    check_memory(2 * largest_step_bytes(model), what)
    return model, outputs, is_half


def _finish(model: ir.Model, path: Path) -> None:
    """Apply the fold rules and remove what the exporter noted about itself."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)
    infer_shapes(model, path)
    fold_graph(model)
    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.ir_version = _IR_VERSION


def _metadata(job: _Job) -> dict[str, str]:
    """Metadata stored in the ONNX file itself, for files whose manifest is lost."""
    contract = job.request.contract
    return {
        "mvde.version": __version__,
        "mvde.name": job.request.name,
        "mvde.stats_patch": str(contract.patch),
        "mvde.grid": "x".join(str(side // contract.patch) for side in job.resolution),
        "mvde.depth_kind": contract.kind.value,
        "mvde.unit": contract.kind.unit,
        "mvde.source_sha256": job.source.sha256,
    }


def _parity(
    job: _Job, candidates: Sequence[check.Maps], originals: Sequence[check.Maps], is_half: bool, photos: Sequence[Path]
) -> GraphParity:
    """Parity of the written graph with the original. Raises :class:`ParityError` beyond the tolerance."""
    contract = job.request.contract
    tolerance = check.HALF_TOLERANCE if is_half else check.TOLERANCE
    reports = []
    for original, ours in zip(originals, candidates, strict=True):
        for role in list(original)[1:]:
            check.check_other_map(role, ours[role], original[role], tolerance)
        reference = original["depth"].astype(np.float32) * np.float32(contract.map_scale)
        check.check_reference(reference)
        reports.append(compare_depth(ours["depth"], reference, contract.patch, kind=contract.kind))
    measured = merge_reports(reports)
    check_parity(measured, tolerance, what=f"the imported graph of {job.source.path}")
    if is_half:
        check.check_half_mean(measured)
    return GraphParity(
        reference="onnx:fp16" if is_half else "onnx:fp32",
        candidate="onnxruntime:fp32",
        tolerance_max_rel=tolerance,
        photos=tuple(photo.name for photo in photos),
        measured=measured,
    )


def _range(job: _Job, originals: Sequence[check.Maps]) -> tuple[float, float]:
    """The contract's range, or from 0 to twice the largest value on the photographs, rounded up to one digit."""
    stated = job.request.contract.valid_range
    if stated is not None:
        return stated
    largest = 2 * job.request.contract.map_scale * max(float(maps["depth"].max()) for maps in originals)
    if not largest > 0:
        raise ArtifactError(
            f"{job.source.path} computes no positive value on photographs (largest {largest / 2:g}); it is no depth "
            "map, or --preset, --mean and --std are not what it expects"
        )
    unit = 10.0 ** np.floor(np.log10(largest))
    return 0.0, float(np.ceil(largest / unit) * unit)


def _manifest(
    job: _Job,
    outputs: Sequence[NamedOutput],
    records: Sequence[FileRecord],
    parity: GraphParity,
    valid_range: tuple[float, float],
    num_flops: int | None,
) -> GraphManifest:
    request, contract = job.request, job.request.contract
    config: dict[str, Any] = {
        "input": job.pixels.name,
        "layout": job.pixels.layout.value,
        "outputs": {output.role.value: output.name for output in outputs},
        "map_scale": contract.map_scale,
        "opset": job.source.opset,
        "external_data": job.source.external,
    }
    height, width = job.resolution
    roles = [output.role for output in outputs]
    return GraphManifest(
        name=request.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        inputs=(InputSpec("image", (request.batch, height, width, 3), "uint8", "BHWC", "RGB"),),
        outputs=tuple(
            OutputSpec(output.role.value, job.batch_shape, "float32", output.role, output.threshold)
            for output in outputs
        ),
        preprocess=contract.preprocess,
        stats_patch=contract.patch,
        grid=(height // contract.patch, width // contract.patch),
        depth_kind=contract.kind,
        unit=contract.kind.unit,
        valid_range=valid_range,
        canonical_focal=contract.canonical_focal,
        focal_convention=contract.focal_convention,
        stats=(*DEFAULT_STATS, CONFIDENCE) if OutputRole.CONFIDENCE in roles else DEFAULT_STATS,
        opset=request.opset,
        source=SourceRecord("onnx", request.path.name, job.source.sha256, config),
        file=records[0],
        tools=installed_versions(_TOOLS),
        parity=parity,
        companions=tuple(records[1:]),
        num_flops=num_flops,
    )
