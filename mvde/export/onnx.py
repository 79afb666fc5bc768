"""A depth model to an ONNX file and its manifest: traced at fixed resolutions, folded, checked, measured, published."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from mvde import __version__
from mvde.artifact import EXPORT_DIR, artifact_stem, write_manifest
from mvde.assets import sample_photos
from mvde.errors import UsageError
from mvde.export.trace import DEFAULT_OPSET, import_export_packages
from mvde.export.tracer import LocalTracer, ModelFacts, Progress, TracedGraph, Tracer, TraceRequest
from mvde.files import staged_write
from mvde.manifest import GraphManifest, InputSpec, OutputSpec, SourceRecord, installed_versions
from mvde.parity import check, compare_depth, merge_reports
from mvde.records import GraphParity
from mvde.resolution import check_resolution
from mvde.stats import DEFAULT_STATS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.model import DepthModel

OPSETS = (18, 19, 20, 21, 22, 23)

PARITY_TOLERANCE = 1e-4
"""Largest |Δdepth| / depth between PyTorch and ONNX Runtime, both float32. Two float32 evaluations of the same graph in
another order of summation differ by 1e-6 to 1e-5 here; a wrong axis, a missing bias or another resampling by 1e-2."""

_MEASURED_WORK = 5e11
"""Multiply-adds of the backbone that the parity check may spend: all photographs for a small model, one for a large."""

_TOOLS = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class _Job:
    """What is the same for every resolution of one call."""

    tracer: Tracer
    facts: ModelFacts
    name: str
    opset: int
    batch: int
    photos: tuple[Path, ...] | None
    progress: Progress

    @property
    def depth_kind(self) -> str:
        return "relative" if self.facts.config.decoder.scale_invariant else "metric"

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        return resolution[0] // self.facts.patch_size, resolution[1] // self.facts.patch_size


def export_onnx(
    model: DepthModel | Callable[[], DepthModel] | Tracer,
    resolutions: Sequence[tuple[int, int]],
    out_dir: str | Path = EXPORT_DIR,
    name: str | None = None,
    opset: int = DEFAULT_OPSET,
    batch: int = 1,
    *,
    checkpoint: Path | None = None,
    photos: Sequence[Path] | None = None,
    progress: Progress = lambda message: None,
) -> list[Path]:
    """Paths of the ONNX files written, one per resolution (H, W) in pixels, each with its manifest beside it.

    The graph takes ``image`` uint8 (B, H, W, 3) RGB and gives ``depth`` float32 (B, H, W), in metres for a metric
    model. ``model`` may be a function that loads it: its memory is then given back before ONNX Runtime needs as much.
    A :class:`~mvde.export.child.ChildTracer` gives back PyTorch's, too. No ``resolutions`` means the native one.
    ``name`` defaults to the configuration's; ``checkpoint`` is the file that the weights came from, for the manifest;
    ``photos`` replace the sample photographs of the parity check; ``progress`` is told what is being done.

    Nothing is written for a resolution that fails: :class:`ResolutionError`, :class:`UsageError` (opset, batch, name),
    :class:`ParityError` over ``PARITY_TOLERANCE``, :class:`OutputError` where the disk is full.
    """
    with contextlib.closing(_tracer(model, checkpoint)) as tracer:
        facts = tracer.facts()
        job = _Job(
            tracer=tracer,
            facts=facts,
            name=name if name is not None else facts.config.name,
            opset=opset,
            batch=batch,
            photos=None if photos is None else tuple(photos),
            progress=progress,
        )
        wanted = list(dict.fromkeys(resolutions)) or [facts.config.vit.image_size]
        _check_arguments(job, wanted)
        return [_export_one(job, resolution, Path(out_dir)) for resolution in wanted]


def _tracer(model: DepthModel | Callable[[], DepthModel] | Tracer, checkpoint: Path | None) -> Tracer:
    if isinstance(model, Tracer):
        return model
    import_export_packages()
    from mvde.model import DepthModel

    return LocalTracer((lambda: model) if isinstance(model, DepthModel) else model, checkpoint)


def _check_arguments(job: _Job, resolutions: Sequence[tuple[int, int]]) -> None:
    """Nothing, if every argument fits; all resolutions are checked before the first is traced."""
    for resolution in resolutions:
        check_resolution(resolution, job.facts.patch_size)
    if job.opset not in OPSETS:
        raise UsageError(f"opset {job.opset} cannot be exported; use one of {', '.join(map(str, OPSETS))}")
    if job.batch < 1:
        raise UsageError(f"the batch must be at least 1, but got {job.batch}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", job.name):
        raise UsageError(f"the name {job.name!r} cannot be a file name; use letters, digits, '.', '-' and '_'")
    if job.photos is not None and not job.photos:
        raise UsageError("no photograph was given for the parity check; leave the argument out to use the samples")


def _export_one(job: _Job, resolution: tuple[int, int], out_dir: Path) -> Path:
    from mvde.export import verify

    stem = artifact_stem(job.name, resolution, job.batch)
    photos = job.photos or tuple(sample_photos()[: _num_photos(job, resolution)])
    images = verify.load_photos(photos, resolution, job.batch)
    with staged_write(out_dir, stem) as staging:
        path = staging / f"{stem}.onnx"
        request = TraceRequest(path, resolution, job.batch, job.opset, _metadata(job, resolution), images)
        written = job.tracer.write(request, job.progress)
        job.progress(f"{stem}: computing depth in ONNX Runtime")
        candidate = verify.onnxruntime_depth(path, images)
        parity = _parity(job, candidate, written.reference, photos, stem)
        write_manifest(_manifest(job, resolution, written, parity), path)
    return out_dir / path.name


def _metadata(job: _Job, resolution: tuple[int, int]) -> dict[str, str]:
    """What the file says of itself where its manifest was lost; the manifest is what is read."""
    decoder = job.facts.config.decoder
    return {
        "mvde.version": __version__,
        "mvde.name": job.name,
        "mvde.patch_size": str(job.facts.patch_size),
        "mvde.grid": "x".join(map(str, job.grid(resolution))),
        "mvde.depth_kind": job.depth_kind,
        "mvde.depth_range_m": f"{decoder.min_depth:g}..{decoder.max_depth:g}",
        "mvde.checkpoint_sha256": job.facts.weights_sha256,
    }


def _parity(
    job: _Job,
    candidate: Sequence[NDArray[np.float32]],
    reference: Sequence[NDArray[np.float32]],
    photos: Sequence[Path],
    stem: str,
) -> GraphParity:
    """Parity as the manifest stores it. Raises :class:`ParityError` over the tolerance."""
    pairs = zip(candidate, reference, strict=True)
    report = merge_reports([compare_depth(onnx_m, torch_m, job.facts.patch_size) for onnx_m, torch_m in pairs])
    check(report, PARITY_TOLERANCE, what=f"the exported graph {stem}")
    names = tuple(photo.name for photo in photos)
    return GraphParity("pytorch:fp32", "onnxruntime:fp32", PARITY_TOLERANCE, names, report)


def _num_photos(job: _Job, resolution: tuple[int, int]) -> int:
    rows, columns = job.grid(resolution)
    return max(1, min(len(sample_photos()), int(_MEASURED_WORK // (rows * columns * job.facts.num_backbone_weights))))


def _manifest(job: _Job, resolution: tuple[int, int], written: TracedGraph, parity: GraphParity) -> GraphManifest:
    decoder = job.facts.config.decoder
    unit = "m" if job.depth_kind == "metric" else "relative"
    return GraphManifest(
        name=job.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        inputs=(InputSpec("image", (job.batch, *resolution, 3), "uint8", "BHWC", "RGB"),),
        outputs=(OutputSpec("depth", (job.batch, *resolution), "float32", unit),),
        normalization=job.facts.normalization,
        patch_size=job.facts.patch_size,
        grid=job.grid(resolution),
        depth_range_m=(decoder.min_depth, decoder.max_depth),
        depth_kind=job.depth_kind,
        stats=DEFAULT_STATS,
        opset=job.opset,
        source=SourceRecord(job.facts.weights_sha256, job.facts.config.to_dict()),
        file=written.records[0],
        tools=installed_versions(_TOOLS),
        parity=parity,
        companions=tuple(written.records[1:]),
        num_flops=written.num_flops,
    )
