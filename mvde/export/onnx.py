"""Export of a depth model to an ONNX file and its manifest: traced at fixed resolutions, folded, checked, published."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mvde import __version__
from mvde.artifact import EXPORT_DIR, artifact_stem, write_manifest
from mvde.assets import sample_photos
from mvde.contract import OutputRole
from mvde.description import ModelDescription
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
from mvde.stats import DEFAULT_STATS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.export.exportable import ExportableModel

OPSETS = (18, 19, 20, 21, 22, 23)

PARITY_TOLERANCE = 1e-4
"""Largest |Δdepth| / depth between PyTorch and ONNX Runtime, both float32.

Two float32 evaluations of the same graph in another order of summation differ by 1e-6 to 1e-5 here; a wrong axis, a
missing bias or another resampling by 1e-2.
"""

_MEASURED_WORK = 1e11
"""Backbone multiply-adds allowed for the parity check: all photographs for a small model, one for a large one.

Depth Anything V2 Small at 518x686 is compared on two: each takes PyTorch and ONNX Runtime 12 s of CPU time, decoder
included, and six would be two thirds of the export.
"""

_LOG = logging.getLogger("mvde.export")

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
    def description(self) -> ModelDescription:
        return self.facts.description


def export_onnx(
    model: ExportableModel | Callable[[], ExportableModel] | Exporter,
    resolutions: Sequence[tuple[int, int]],
    out_dir: str | Path = EXPORT_DIR,
    name: str | None = None,
    opset: int = DEFAULT_OPSET,
    batch: int = 1,
    *,
    checkpoint: Path | None = None,
    photos: Sequence[Path] | None = None,
    frame: tuple[int, int] | None = None,
    progress: Progress = no_progress,
) -> list[Path]:
    """Export ``model`` to one ONNX file with manifest per resolution (H, W) in pixels; return the files' paths.

    The graph takes ``image`` uint8 (B, H, W, 3) RGB and returns ``depth`` float32 (B, H, W): metres for a metric model,
    the raw map for inverse and relative ones, as the manifest's ``depth_kind`` says. ``model`` may be a function that
    loads it: its memory is then freed before ONNX Runtime needs as much. A
    :class:`~mvde.export.subprocess_exporter.SubprocessExporter` frees PyTorch's too. Empty ``resolutions`` means the
    one that the author's preprocessing gives for a ``frame`` (H, W), by default the native one. ``name`` defaults to
    the model's; ``checkpoint`` is the file of the weights, for the manifest; ``photos`` replace the sample photographs
    of the parity check; ``progress`` receives status messages.

    Nothing is written for a resolution that fails: :class:`ResolutionError`, :class:`UsageError` (opset, batch, name),
    :class:`ParityError` over ``PARITY_TOLERANCE``, :class:`OutputError` if the disk is full.
    """
    with contextlib.closing(_exporter(model, checkpoint)) as exporter:
        facts = exporter.facts()
        run = _ExportRun(
            exporter=exporter,
            facts=facts,
            name=name if name is not None else facts.description.name,
            opset=opset,
            batch=batch,
            photos=None if photos is None else tuple(photos),
            progress=progress,
        )
        sizing = facts.description.sizing
        wanted = list(dict.fromkeys(resolutions)) or [sizing.size if frame is None else sizing.for_frame(frame)]
        for resolution in wanted:  # validate all before tracing the first
            facts.description.check(resolution)
            _say_if_unusual(facts.description, resolution)
        return [_export_one(run, resolution, Path(out_dir)) for resolution in wanted]


def _say_if_unusual(described: ModelDescription, resolution: tuple[int, int]) -> None:
    """Log a warning for a size that the author's preprocessing of a third-party model never gives."""
    if described.origin.kind == "mvde" or described.sizing.is_authors(resolution):
        return
    height, width = described.sizing.size
    _LOG.warning(
        "%dx%d is not a size that the author's preprocessing of %s gives (%dx%d, or --frame HxW for your camera); its "
        "accuracy there is unknown",
        *resolution,
        described.origin.name,
        height,
        width,
    )


def _exporter(model: ExportableModel | Callable[[], ExportableModel] | Exporter, checkpoint: Path | None) -> Exporter:
    if isinstance(model, Exporter):
        return model
    torch = import_export_packages()
    if isinstance(model, torch.nn.Module):  # callable, too
        return LocalExporter(partial(_itself, model), checkpoint)
    return LocalExporter(cast("Callable[[], ExportableModel]", model), checkpoint)


def _itself(model: ExportableModel) -> ExportableModel:
    return model


def _export_one(run: _ExportRun, resolution: tuple[int, int], out_dir: Path) -> Path:
    stem = artifact_stem(run.name, resolution, run.batch)
    photos = run.photos or tuple(sample_photos()[: _num_photos(run, resolution)])
    images = verify.load_photos(photos, resolution, run.batch, run.description.preprocess)
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
    described = run.description
    low, high = described.valid_range
    return {
        "mvde.version": __version__,
        "mvde.name": run.name,
        "mvde.stats_patch": str(described.stats_patch),
        "mvde.grid": "x".join(map(str, described.grid(resolution))),
        "mvde.depth_kind": described.depth_kind.value,
        "mvde.unit": described.depth_kind.unit,
        "mvde.valid_range": f"{low:g}..{high:g}",
        "mvde.source_sha256": run.facts.weights_sha256,
    }


def _parity(
    run: _ExportRun,
    candidates: Sequence[NDArray[np.float32]],
    references: Sequence[NDArray[np.float32]],
    photos: Sequence[Path],
) -> GraphParity:
    """Parity of the file's map with the model's, batch by batch."""
    pairs, described = zip(candidates, references, strict=True), run.description
    patch, kind = described.stats_patch, described.depth_kind
    return GraphParity(
        reference="pytorch:fp32",
        candidate="onnxruntime:fp32",
        tolerance_max_rel=PARITY_TOLERANCE,
        photos=tuple(photo.name for photo in photos),
        measured=merge_reports([compare_depth(onnx_map, torch_map, patch, kind=kind) for onnx_map, torch_map in pairs]),
    )


def _num_photos(run: _ExportRun, resolution: tuple[int, int]) -> int:
    rows, columns = run.description.grid(resolution)
    return max(1, min(len(sample_photos()), int(_MEASURED_WORK // (rows * columns * run.facts.num_encoder_weights))))


def _manifest(
    run: _ExportRun, resolution: tuple[int, int], written: WrittenGraph, parity: GraphParity
) -> GraphManifest:
    described, origin = run.description, run.description.origin
    return GraphManifest(
        name=run.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        inputs=(InputSpec("image", (run.batch, *resolution, 3), "uint8", "BHWC", "RGB"),),
        outputs=(OutputSpec("depth", (run.batch, *resolution), "float32", OutputRole.DEPTH),),
        preprocess=described.preprocess,
        stats_patch=described.stats_patch,
        grid=described.grid(resolution),
        depth_kind=described.depth_kind,
        unit=described.depth_kind.unit,
        valid_range=described.valid_range,
        canonical_focal=described.canonical_focal,
        focal_convention=described.focal_convention,
        stats=DEFAULT_STATS,
        opset=run.opset,
        source=SourceRecord(
            kind=origin.kind,
            name=origin.name,
            sha256=run.facts.weights_sha256,
            config=origin.config,
            revision=origin.revision,
            licence=origin.licence,
        ),
        file=written.records[0],
        tools=installed_versions(_TOOLS),
        parity=parity,
        companions=tuple(written.records[1:]),
        num_flops=written.num_flops,
    )
