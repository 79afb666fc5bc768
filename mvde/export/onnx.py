"""A depth model to an ONNX file and its manifest: traced at fixed resolutions, folded, checked, measured, published."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde import __version__
from mvde.artifact import (
    EXPORT_DIR,
    FileRecord,
    InputSpec,
    Manifest,
    Normalization,
    OutputSpec,
    SourceRecord,
    artifact_stem,
    staged_write,
    write_manifest,
)
from mvde.assets import sample_photos
from mvde.config import Config, check_resolution
from mvde.errors import MissingDependencyError, UsageError
from mvde.export.fold import DEFAULT_RULES, fold_graph
from mvde.manifest import installed_versions
from mvde.parity import check, compare_depth, merge_reports
from mvde.stats import DEFAULT_STATS

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import torch
    from numpy.typing import NDArray

    from mvde.model import DepthModel

OPSETS = (18, 19, 20, 21, 22, 23)
DEFAULT_OPSET = 23
"""The first opset with the standard ``Attention`` operator."""

PARITY_TOLERANCE = 1e-4
"""Largest |Δdepth| / depth between PyTorch and ONNX Runtime, both float32. Two float32 evaluations of the same graph in
another order of summation differ by 1e-6 to 1e-5 here; a wrong axis, a missing bias or another resampling by 1e-2."""

_MEASURED_WORK = 5e11
"""Multiply-adds of the backbone that the parity check may spend: all photographs for a small model, one for a large."""

_TOOLS = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")

Progress = Callable[[str], None]


class _ModelSource:
    """Hands the model out and keeps none itself, so that its memory is free while ONNX Runtime needs as much."""

    def __init__(self, model: DepthModel | Callable[[], DepthModel]) -> None:
        from mvde.model import DepthModel

        self._load: Callable[[], DepthModel] = (lambda: model) if isinstance(model, DepthModel) else model
        self._next: DepthModel | None = None

    def peek(self) -> DepthModel:
        """The model that :meth:`take` hands out next."""
        self._next = self._next or self._load()
        return self._next

    def take(self) -> DepthModel:
        """The model, loaded again if it was taken before."""
        model, self._next = self.peek(), None
        return model


@dataclass(frozen=True)
class _Job:
    """What is the same for every resolution of one call."""

    source: _ModelSource
    config: Config
    patch_size: int
    normalization: Normalization
    num_backbone_weights: int
    name: str
    opset: int
    batch: int
    checkpoint_sha256: str
    photos: tuple[Path, ...] | None
    progress: Progress

    @property
    def depth_kind(self) -> str:
        return "relative" if self.config.decoder.scale_invariant else "metric"

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        return resolution[0] // self.patch_size, resolution[1] // self.patch_size


def export_onnx(
    model: DepthModel | Callable[[], DepthModel],
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
    No ``resolutions`` means the native one. ``name`` defaults to the configuration's; ``checkpoint`` is the file that
    the weights came from, for the manifest; ``photos`` replace the sample photographs of the parity check;
    ``progress`` is told what is being done.

    Nothing is written for a resolution that fails: :class:`ResolutionError`, :class:`UsageError` (opset, batch, name),
    :class:`ParityError` over ``PARITY_TOLERANCE``, :class:`OutputError` where the disk is full.
    """
    _import_export_packages()
    source = _ModelSource(model)
    facts = source.peek()
    job = _Job(
        source=source,
        config=facts.config,
        patch_size=facts.patch_size,
        normalization=Normalization(_floats(facts.mean), _floats(facts.std), folded=True),
        num_backbone_weights=sum(parameter.numel() for parameter in facts.backbone.parameters()),
        name=name if name is not None else facts.config.name,
        opset=opset,
        batch=batch,
        checkpoint_sha256=_weights_sha256(facts, checkpoint),
        photos=None if photos is None else tuple(photos),
        progress=progress,
    )
    del facts
    wanted = list(dict.fromkeys(resolutions)) or [job.config.vit.image_size]
    _check_arguments(job, wanted)
    return [_export_one(job, resolution, Path(out_dir)) for resolution in wanted]


def _check_arguments(job: _Job, resolutions: Sequence[tuple[int, int]]) -> None:
    """Nothing, if every argument fits; all resolutions are checked before the first is traced."""
    for resolution in resolutions:
        check_resolution(resolution, job.patch_size)
    if job.opset not in OPSETS:
        raise UsageError(f"opset {job.opset} cannot be exported; use one of {', '.join(map(str, OPSETS))}")
    if job.batch < 1:
        raise UsageError(f"the batch must be at least 1, but got {job.batch}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", job.name):
        raise UsageError(f"the name {job.name!r} cannot be a file name; use letters, digits, '.', '-' and '_'")
    if job.photos is not None and not job.photos:
        raise UsageError("no photograph was given for the parity check; leave the argument out to use the samples")


def _export_one(job: _Job, resolution: tuple[int, int], out_dir: Path) -> Path:
    from mvde.export.verify import load_photos, onnxruntime_depth

    stem = artifact_stem(job.name, resolution, job.batch)
    photos = job.photos or tuple(sample_photos()[: _num_photos(job, resolution)])
    images = load_photos(photos, resolution, job.batch)
    with staged_write(out_dir, stem) as staging:
        path = staging / f"{stem}.onnx"
        records, num_flops, reference = _write_graph(job, resolution, path, images)
        _return_freed_memory()
        job.progress(f"{stem}: computing depth in ONNX Runtime")
        candidate = onnxruntime_depth(path, images)
        parity = _parity(job, candidate, reference, stem)
        parity["photos"] = [photo.name for photo in photos]
        write_manifest(_manifest(job, resolution, records, num_flops, parity), path)
    return out_dir / path.name


def _write_graph(
    job: _Job, resolution: tuple[int, int], path: Path, images: Sequence[NDArray[np.uint8]]
) -> tuple[list[FileRecord], int, list[NDArray[np.float32]]]:
    """Records of the files written, the graph's operations, PyTorch's depth (B, H, W) by batch; lets the model go."""
    from mvde.export.flops import count_flops
    from mvde.export.serialize import save_model
    from mvde.export.verify import torch_depth

    model = job.source.take()
    _return_freed_memory()  # what loading left behind; the exporter's libraries are not loaded yet either
    job.progress(f"{path.stem}: computing depth in PyTorch")
    reference = [torch_depth(model, image) for image in images]
    job.progress(f"{path.stem}: tracing")
    with traced(model, resolution, job.batch, job.opset) as graph:
        num_flops = count_flops(graph)
        job.progress(f"{path.stem}: writing")
        records = save_model(graph, path, _metadata(job, resolution))
    return records, num_flops, reference


@contextlib.contextmanager
def traced(
    model: DepthModel,
    resolution: tuple[int, int],
    batch: int = 1,
    opset: int = DEFAULT_OPSET,
    rules: Iterable[str] = DEFAULT_RULES,
) -> Iterator[ir.Model]:
    """Graph of ``model`` at ``resolution``, folded by ``rules``: uint8 (B, H, W, 3) in, depth (B, H, W) out.

    The graph shares the model's weights and is empty of them when the block ends: the exporter's rewriter remembers
    the last graph that it saw, and would keep the weights in memory.
    """
    torch = _import_export_packages()
    was_training = model.training
    try:
        wrapper, aliases = _with_aliases(_camera_bytes_model(model, resolution))
        image = torch.zeros(batch, *resolution, 3, dtype=torch.uint8)
        with torch.no_grad(), _quiet_exporter():
            program = torch.onnx.export(
                wrapper,
                (image,),
                dynamo=True,
                opset_version=opset,
                input_names=["image"],
                output_names=["depth"],
                verbose=False,
            )
    finally:
        model.train(was_training)
    graph: ir.Model = program.model
    values = list(graph.graph.initializers.values())
    fold_graph(graph, rules)
    _forget_origin(graph)
    try:
        yield graph
    finally:
        for value in (*values, *graph.graph.initializers.values()):
            value.const_value = None
        for alias in aliases:
            alias.data = torch.empty(0)


def _with_aliases(module: torch.nn.Module) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """Copy of a module in evaluation mode, and its tensors: other objects on the same memory."""
    import copy

    import torch

    tensors = [*module.parameters(), *module.buffers()]
    aliases: list[torch.Tensor] = [torch.nn.Parameter(tensor.detach(), requires_grad=False) for tensor in tensors]
    memo: dict[int, Any] = {id(tensor): alias for tensor, alias in zip(tensors, aliases, strict=True)}
    return copy.deepcopy(module, memo).eval(), aliases


def _import_export_packages() -> Any:
    """torch, once every package that the exporter needs was found."""
    for package in ("torch", "onnx", "onnxscript", "onnx_ir"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError.for_extra(package, "export", "exporting a model")
    import torch

    return torch


def _camera_bytes_model(model: DepthModel, resolution: tuple[int, int]) -> torch.nn.Module:
    """Module from bytes (B, H, W, 3) to depth; the trained model stays clean of export's needs."""
    import torch

    class CameraBytesModel(torch.nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model.at_resolution(resolution)
            self.register_buffer("mean", model.mean.detach().clone())
            self.register_buffer("std", model.std.detach().clone())

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            # The cast comes first: TensorRT's parser refuses to transpose uint8.
            pixels = image.to(torch.float32).permute(0, 3, 1, 2)  # (B, 3, H, W)
            depth: torch.Tensor = self.model((pixels / 255 - self.mean) / self.std)
            return depth

    return CameraBytesModel().eval()


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter's notes on packages that play no part here (torchvision) are kept from the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _forget_origin(graph: ir.Model) -> None:
    """The exporter stores stack traces with paths of this machine in every node; they are left out."""
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.graph.inputs, *graph.graph.initializers.values()):
        value.metadata_props.clear()
    graph.graph.metadata_props.clear()
    graph.metadata_props.clear()


def _metadata(job: _Job, resolution: tuple[int, int]) -> dict[str, str]:
    """What the file says of itself where its manifest was lost; the manifest is what is read."""
    decoder = job.config.decoder
    return {
        "mvde.version": __version__,
        "mvde.name": job.name,
        "mvde.patch_size": str(job.patch_size),
        "mvde.grid": "x".join(map(str, job.grid(resolution))),
        "mvde.depth_kind": job.depth_kind,
        "mvde.depth_range_m": f"{decoder.min_depth:g}..{decoder.max_depth:g}",
        "mvde.checkpoint_sha256": job.checkpoint_sha256,
    }


def _return_freed_memory() -> None:
    """Nothing; hands what glibc's allocator keeps of freed memory (the model's, 400 MB for base) back to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # absent from other C libraries
    if trim is not None:
        trim(0)


def _parity(
    job: _Job, candidate: Sequence[NDArray[np.float32]], reference: Sequence[NDArray[np.float32]], stem: str
) -> dict[str, Any]:
    """Parity as the manifest stores it. Raises :class:`ParityError` over the tolerance."""
    pairs = zip(candidate, reference, strict=True)
    report = merge_reports([compare_depth(onnx_m, torch_m, job.patch_size) for onnx_m, torch_m in pairs])
    check(report, PARITY_TOLERANCE, what=f"the exported graph {stem}")
    ends = {"reference": "pytorch:fp32", "candidate": "onnxruntime:fp32"}
    return {**ends, "tolerance_max_rel": PARITY_TOLERANCE, **report.to_dict()}


def _num_photos(job: _Job, resolution: tuple[int, int]) -> int:
    rows, columns = job.grid(resolution)
    return max(1, min(len(sample_photos()), int(_MEASURED_WORK // (rows * columns * job.num_backbone_weights))))


def _manifest(
    job: _Job, resolution: tuple[int, int], records: Sequence[FileRecord], num_flops: int, parity: dict[str, Any]
) -> Manifest:
    decoder = job.config.decoder
    unit = "m" if job.depth_kind == "metric" else "relative"
    return Manifest(
        kind="onnx",
        name=job.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        inputs=(InputSpec("image", (job.batch, *resolution, 3), "uint8", "BHWC", "RGB"),),
        outputs=(OutputSpec("depth", (job.batch, *resolution), "float32", unit),),
        normalization=job.normalization,
        patch_size=job.patch_size,
        grid=job.grid(resolution),
        depth_range_m=(decoder.min_depth, decoder.max_depth),
        depth_kind=job.depth_kind,
        stats=DEFAULT_STATS,
        opset=job.opset,
        source=SourceRecord(job.checkpoint_sha256, job.config.to_dict()),
        file=records[0],
        tools=installed_versions(_TOOLS),
        parity=parity,
        companions=tuple(records[1:]),
        num_flops=num_flops,
    )


def _floats(tensor: torch.Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in tensor.flatten().tolist())


def _weights_sha256(model: DepthModel, checkpoint: Path | None) -> str:
    """SHA-256 of the checkpoint, or of the weights themselves (names, shapes, bytes) where there is no file."""
    import hashlib

    from mvde.artifact import sha256_file

    if checkpoint is not None:
        return sha256_file(checkpoint)
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()
