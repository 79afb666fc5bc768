"""Export of a depth model to an ONNX file and its manifest: traced at fixed resolutions, folded, checked, published."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from mvde import __version__
from mvde.artifact import EXPORT_DIR, artifact_stem, write_manifest
from mvde.assets import sample_photos
from mvde.contract import DepthKind, FocalConvention, OutputRole
from mvde.errors import UsageError
from mvde.export import verify
from mvde.export.exporter import Exporter, GraphRequest, LocalExporter, ModelFacts, WrittenGraph
from mvde.export.progress import Progress, no_progress
from mvde.export.torch_graph import DEFAULT_OPSET, import_export_packages
from mvde.manifest import (
    NAME_RULE,
    GraphManifest,
    InputSpec,
    OutputSpec,
    SourceRecord,
    installed_versions,
    is_model_name,
)
from mvde.parity import check, compare_depth, merge_reports
from mvde.publish import staged_write
from mvde.records import GraphParity
from mvde.resolution import check_resolution
from mvde.stats import DEFAULT_STATS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.model import DepthModel

OPSETS = (18, 19, 20, 21, 22, 23)

PARITY_TOLERANCE = 1e-4
"""Largest |Δdepth| / depth between PyTorch and ONNX Runtime, both float32.

Two float32 evaluations of the same graph in another order of summation differ by 1e-6 to 1e-5 here; a wrong axis, a
missing bias or another resampling by 1e-2.
"""

_MEASURED_WORK = 5e11
"""Backbone multiply-adds allowed for the parity check: all photographs for a small model, one for a large one."""

_TOOLS = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class _ExportRun:
    """Settings shared by all resolutions of one call. Raises :class:`UsageError` for an invalid value."""

    exporter: Exporter
    facts: ModelFacts
    name: str
    opset: int
    batch: int
    photos: tuple[Path, ...] | None
    progress: Progress

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise UsageError(f"opset {self.opset} cannot be exported; use one of {', '.join(map(str, OPSETS))}")
        if self.batch < 1:
            raise UsageError(f"the batch must be at least 1, but got {self.batch}")
        if not is_model_name(self.name):
            raise UsageError(f"the name {self.name!r} cannot be a file name; use {NAME_RULE}")
        if self.photos is not None and not self.photos:
            raise UsageError("no photograph was given for the parity check; leave the argument out to use the samples")

    @property
    def depth_kind(self) -> DepthKind:
        decoder = self.facts.config.decoder
        if decoder.scale_invariant:
            return DepthKind.SCALE_INVARIANT
        return DepthKind.METRIC if decoder.canonical_focal is None else DepthKind.METRIC_FOCAL

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        return resolution[0] // self.facts.patch_size, resolution[1] // self.facts.patch_size


def export_onnx(
    model: DepthModel | Callable[[], DepthModel] | Exporter,
    resolutions: Sequence[tuple[int, int]],
    out_dir: str | Path = EXPORT_DIR,
    name: str | None = None,
    opset: int = DEFAULT_OPSET,
    batch: int = 1,
    *,
    checkpoint: Path | None = None,
    photos: Sequence[Path] | None = None,
    progress: Progress = no_progress,
) -> list[Path]:
    """Export ``model`` to one ONNX file with manifest per resolution (H, W) in pixels; return the files' paths.

    The graph takes ``image`` uint8 (B, H, W, 3) RGB and returns ``depth`` float32 (B, H, W), in metres for a metric
    model. ``model`` may be a function that loads it: its memory is then freed before ONNX Runtime needs as much. A
    :class:`~mvde.export.subprocess_exporter.SubprocessExporter` frees PyTorch's too. Empty ``resolutions`` means the
    native one. ``name`` defaults to the configuration's; ``checkpoint`` is the file of the weights, for the manifest;
    ``photos`` replace the sample photographs of the parity check; ``progress`` receives status messages.

    Nothing is written for a resolution that fails: :class:`ResolutionError`, :class:`UsageError` (opset, batch, name),
    :class:`ParityError` over ``PARITY_TOLERANCE``, :class:`OutputError` if the disk is full.
    """
    with contextlib.closing(_exporter(model, checkpoint)) as exporter:
        facts = exporter.facts()
        run = _ExportRun(
            exporter=exporter,
            facts=facts,
            name=name if name is not None else facts.config.name,
            opset=opset,
            batch=batch,
            photos=None if photos is None else tuple(photos),
            progress=progress,
        )
        wanted = list(dict.fromkeys(resolutions)) or [facts.config.vit.image_size]
        for resolution in wanted:  # validate all before tracing the first
            check_resolution(resolution, facts.patch_size)
        return [_export_one(run, resolution, Path(out_dir)) for resolution in wanted]


def _exporter(model: DepthModel | Callable[[], DepthModel] | Exporter, checkpoint: Path | None) -> Exporter:
    if isinstance(model, Exporter):
        return model
    import_export_packages()
    from mvde.model import DepthModel

    return LocalExporter((lambda: model) if isinstance(model, DepthModel) else model, checkpoint)


def _export_one(run: _ExportRun, resolution: tuple[int, int], out_dir: Path) -> Path:
    stem = artifact_stem(run.name, resolution, run.batch)
    photos = run.photos or tuple(sample_photos()[: _num_photos(run, resolution)])
    images = verify.load_photos(photos, resolution, run.batch, run.facts.preprocess)
    with staged_write(out_dir, stem) as staging:
        path = staging / f"{stem}.onnx"
        request = GraphRequest(path, resolution, run.batch, run.opset, _metadata(run, resolution), images)
        written = run.exporter.write(request, run.progress)
        run.progress(f"{stem}: computing depth in ONNX Runtime")
        candidate = verify.onnxruntime_depth(path, images)
        parity = _parity(run, candidate, written.reference, photos)
        check(parity.measured, PARITY_TOLERANCE, what=f"the exported graph {stem}")
        write_manifest(_manifest(run, resolution, written, parity), path)
    return out_dir / path.name


def _metadata(run: _ExportRun, resolution: tuple[int, int]) -> dict[str, str]:
    """Metadata stored in the ONNX file itself, for files whose manifest is lost; mvde reads the manifest."""
    decoder = run.facts.config.decoder
    return {
        "mvde.version": __version__,
        "mvde.name": run.name,
        "mvde.stats_patch": str(run.facts.patch_size),
        "mvde.grid": "x".join(map(str, run.grid(resolution))),
        "mvde.depth_kind": run.depth_kind.value,
        "mvde.unit": run.depth_kind.unit,
        "mvde.valid_range": f"{decoder.min_depth:g}..{decoder.max_depth:g}",
        "mvde.source_sha256": run.facts.weights_sha256,
    }


def _parity(
    run: _ExportRun,
    candidate_m: Sequence[NDArray[np.float32]],
    reference_m: Sequence[NDArray[np.float32]],
    photos: Sequence[Path],
) -> GraphParity:
    """Parity of the file's depth with the model's, batch by batch."""
    pairs = zip(candidate_m, reference_m, strict=True)
    return GraphParity(
        reference="pytorch:fp32",
        candidate="onnxruntime:fp32",
        tolerance_max_rel=PARITY_TOLERANCE,
        photos=tuple(photo.name for photo in photos),
        measured=merge_reports([compare_depth(onnx_m, torch_m, run.facts.patch_size) for onnx_m, torch_m in pairs]),
    )


def _num_photos(run: _ExportRun, resolution: tuple[int, int]) -> int:
    rows, columns = run.grid(resolution)
    return max(1, min(len(sample_photos()), int(_MEASURED_WORK // (rows * columns * run.facts.num_backbone_weights))))


def _manifest(
    run: _ExportRun, resolution: tuple[int, int], written: WrittenGraph, parity: GraphParity
) -> GraphManifest:
    decoder, kind = run.facts.config.decoder, run.depth_kind
    return GraphManifest(
        name=run.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        inputs=(InputSpec("image", (run.batch, *resolution, 3), "uint8", "BHWC", "RGB"),),
        outputs=(OutputSpec("depth", (run.batch, *resolution), "float32", OutputRole.DEPTH),),
        preprocess=run.facts.preprocess,
        stats_patch=run.facts.patch_size,
        grid=run.grid(resolution),
        depth_kind=kind,
        unit=kind.unit,
        valid_range=(decoder.min_depth, decoder.max_depth),
        canonical_focal=decoder.canonical_focal if kind.has_canonical_camera else None,
        focal_convention=FocalConvention.GEOMETRIC if kind.has_canonical_camera else None,
        stats=DEFAULT_STATS,
        opset=run.opset,
        source=SourceRecord("mvde", run.facts.config.name, run.facts.weights_sha256, run.facts.config.to_dict()),
        file=written.records[0],
        tools=installed_versions(_TOOLS),
        parity=parity,
        companions=tuple(written.records[1:]),
        num_flops=written.num_flops,
    )
