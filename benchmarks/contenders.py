"""Contenders of `benchmarks/peers.py`: functions from a photograph to its depth and patch statistics."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fold_ledger import load_model
from patch_stats import plain_numpy
from PIL import Image
from torch.nn import functional as F

from mvde.artifact import artifact_stem
from mvde.contract import Interpolation
from mvde.description import ModelDescription
from mvde.precision import Precision

Frame = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Photograph (H, W, 3) → depth (H, W) and statistics (N, 3)."""

ENGINES = ("openvino:bf16", "openvino:int8", "openvino:fp32", "onnxruntime:fp32", "onnxruntime:int8")
CALIBRATION_IMAGES = 8
"""Photographs that NNCF and ONNX Runtime calibrate on, at most; NNCF's default of 300 is for data sets."""


@dataclass(frozen=True)
class Subject:
    """The model that everybody runs, at one resolution (H, W); ``folder`` holds it if it is of transformers."""

    model: Any
    resolution: tuple[int, int]
    folder: Path | None = None

    @property
    def about(self) -> ModelDescription:
        """What the model expects and gives."""
        described: ModelDescription = self.model.describe()
        return described

    @property
    def name(self) -> str:
        """Name of the model's graphs."""
        return self.about.name

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the pixels in bytes, float32 (3,)."""
        preprocess = self.about.preprocess
        to_bytes = np.float32(255 / preprocess.pixel_range)
        return np.float32(preprocess.mean) * to_bytes, np.float32(preprocess.std) * to_bytes

    @property
    def is_bicubic(self) -> bool:
        """Whether photographs are resized with bicubic rather than bilinear interpolation."""
        return self.about.preprocess.interpolation is Interpolation.BICUBIC


def subject_of(folder: Path | None, config: Path | None, resolution: tuple[int, int]) -> Subject:
    """Load a model of transformers, a configuration's with random weights, or the shipped one."""
    if folder is None:
        return Subject(load_model(config).eval(), resolution)
    from mvde.families import load_family_model

    return Subject(load_family_model(str(folder)).eval(), resolution, folder)


def peers(subject: Subject, folder: Path, images: list[np.ndarray]) -> dict[str, Callable[[], Frame]]:
    """Factories of the peers, by name."""
    network = PlainModel(subject.model).eval()
    export = partial(plain_export, network, subject.resolution, plain_path(subject, folder))

    def compiled(autocast: bool) -> Frame:
        return partial(torch_frame, subject, torch.compile(network), autocast)

    found: dict[str, Callable[[], Frame]] = {
        "torch eager fp32": lambda: partial(torch_frame, subject, network, False),
        "torch eager bf16 autocast": lambda: partial(torch_frame, subject, network, True),
        "torch.compile fp32": lambda: compiled(False),
        "torch.compile bf16 autocast": lambda: compiled(True),
        "torch.onnx.export, ONNX Runtime": lambda: plain_onnxruntime(subject, export()),
        "torch.onnx.export, OpenVINO": lambda: plain_openvino(subject, str(export())),
        "torch.onnx.export, NNCF int8, OpenVINO": lambda: nncf_openvino(subject, export(), images),
        "torch.onnx.export, static int8, ONNX Runtime": lambda: static_onnxruntime(subject, export(), images),
    }
    if subject.folder is not None:
        found["transformers pipeline"] = partial(pipeline_frame, subject, subject.folder)
    return found


def engines(subject: Subject, folder: Path, root: Path, stack: contextlib.ExitStack) -> dict[str, Callable[[], Frame]]:
    """Factories of mvde's runtimes, by name: the engines that work on this machine, kept in ``root``.

    The model's own graph in every precision, and what `mvde import` makes of the plain export in float32.
    """
    from mvde.engines.base import EngineId
    from mvde.engines.store import support

    ids = [EngineId.parse(text) for text in ENGINES]
    works = [engine_id for engine_id in ids if support(engine_id).works]
    plain = [engine_id for engine_id in works if engine_id.precision is Precision.FP32]
    exported, imported = partial(exported_graph, subject, folder), partial(imported_graph, subject, folder)
    found = {f"mvde {one}": partial(runtime_frame, exported, one, root, stack) for one in works}
    return found | {f"mvde import, {one}": partial(runtime_frame, imported, one, root, stack) for one in plain}


def ggml_peers(
    subject: Subject, library: Path | None, ggufs: list[Path], isa: str | None, stack: contextlib.ExitStack
) -> dict[str, Callable[[], Frame]]:
    """Factories of depth-anything.cpp with each file of weights, by name."""
    if library is None:
        return {}
    return {f"depth-anything.cpp {one.stem}": partial(ggml_frame, subject, library, one, isa, stack) for one in ggufs}


class PlainModel(torch.nn.Module):
    """The bare network, as usually exported: normalised float pixels (1, 3, H, W) to depth (1, H, W)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Depth of normalised pixels."""
        depth: torch.Tensor = self.model.depth_from_pixels(pixels)
        return depth


@torch.inference_mode()
def torch_frame(
    subject: Subject, network: torch.nn.Module, autocast: bool, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frame in PyTorch: resize, normalise, infer, resize back, statistics."""
    mean, std = (torch.from_numpy(bound)[:, None, None] for bound in subject.bounds)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    mode = "bicubic" if subject.is_bicubic else "bilinear"
    pixels = F.interpolate(pixels, size=subject.resolution, mode=mode, antialias=True, align_corners=False)
    pixels = (pixels.clamp(0, 255) - mean) / std
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        depth = network(pixels)
    depth = depth.float()
    full = F.interpolate(depth[None], size=image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    return full.numpy(), plain_numpy(depth.numpy(), subject.about.stats_patch)[0]


def pipeline_frame(subject: Subject, folder: Path) -> Frame:
    """Frame of the pipeline of transformers, and the usual statistics."""
    from transformers import pipeline

    estimate = pipeline("depth-estimation", model=str(folder), device="cpu")
    size = subject.resolution

    def frame(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        depth = estimate(Image.fromarray(image))["predicted_depth"]
        small = F.interpolate(depth[None, None], size=size, mode="bilinear", align_corners=False)[0]
        return depth.numpy(), plain_numpy(small.numpy(), subject.about.stats_patch)[0]

    return frame


def pixels_of(subject: Subject, image: np.ndarray) -> np.ndarray:
    """Normalised pixels (1, 3, H, W), float32, of a photograph: Pillow resizes, NumPy does the rest."""
    mean, std = subject.bounds
    kernel = Image.Resampling.BICUBIC if subject.is_bicubic else Image.Resampling.BILINEAR
    small = Image.fromarray(image).resize(subject.resolution[::-1], kernel)
    return np.ascontiguousarray(((np.asarray(small, np.float32) - mean) / std).transpose(2, 0, 1)[None])


def numpy_frame(
    subject: Subject, infer: Callable[[np.ndarray], np.ndarray], image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frame without PyTorch."""
    return full_size(subject, infer(pixels_of(subject, image)), image)


def full_size(subject: Subject, depth: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth at the photograph's pixels, resized by Pillow, and statistics of the network's map (1, H, W)."""
    full = Image.fromarray(depth[0]).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    return np.asarray(full), plain_numpy(depth, subject.about.stats_patch)[0]


def plain_path(subject: Subject, folder: Path) -> Path:
    """Where the plain export of the model is kept."""
    return folder / f"{artifact_stem(subject.name, subject.resolution)}.plain.onnx"


def plain_export(network: torch.nn.Module, resolution: tuple[int, int], path: Path) -> Path:
    """File written by `torch.onnx.export` with default settings; reused if it exists."""
    if not path.exists():
        example = torch.zeros(1, 3, *resolution)
        torch.onnx.export(network, (example,), str(path), dynamo=True, verbose=False)
    return path


def plain_onnxruntime(subject: Subject, path: Path) -> Frame:
    """Frame of ONNX Runtime with default settings."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return partial(numpy_frame, subject, lambda pixels: session.run(None, {name: pixels})[0])


def plain_openvino(subject: Subject, path: str) -> Frame:
    """Frame of OpenVINO with default settings: bf16 where the CPU supports it.

    Below a cap its default would still be the CPU's bf16, which then fails; a CPU without it has float32.
    """
    from mvde.engines import isa
    from mvde.engines.openvino.library import arithmetic, openvino_library

    is_capped = bool(isa.cap()) and not arithmetic(Precision.BF16).works
    options = {"INFERENCE_PRECISION_HINT": "f32"} if is_capped else {}
    compiled = openvino_library().compile_model(path, "CPU", options)
    return partial(numpy_frame, subject, lambda pixels: compiled(pixels)[0])


def nncf_openvino(subject: Subject, path: Path, images: list[np.ndarray]) -> Frame:
    """Frame of OpenVINO on NNCF's int8 model, quantised as its guide does transformers; reused if it exists."""
    quantized = path.with_suffix(".nncf.xml")
    if not quantized.exists():
        from mvde.engines.openvino.library import openvino_library

        os.environ["NNCF_CI"] = "1"  # its switch for telemetry
        import nncf

        openvino = openvino_library()
        samples = [pixels_of(subject, image) for image in images[:CALIBRATION_IMAGES]]
        model = nncf.quantize(
            openvino.Core().read_model(str(path)),
            nncf.Dataset(samples),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
        )
        openvino.save_model(model, str(quantized), compress_to_fp16=False)
    return plain_openvino(subject, str(quantized))


def static_onnxruntime(subject: Subject, path: Path, images: list[np.ndarray]) -> Frame:
    """Frame of ONNX Runtime on its own static int8 model, quantised as its guide says; reused if it exists.

    The guide's first choice is the default (signed Q/DQ, a scale per tensor, min-max), after its pre-processing; before
    VNNI it asks for the reduced range of weights.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from mvde.engines.isa import saturates
    from mvde.engines.machine import cpu_features

    class Samples(quantization.CalibrationDataReader):
        """The photographs' pixels, one at a time."""

        def __init__(self) -> None:
            self.left = [{"pixels": pixels_of(subject, image)} for image in images[:CALIBRATION_IMAGES]]

        def get_next(self) -> Any:
            """Next input of the network, or None."""
            return self.left.pop() if self.left else None

    quantized, prepared = path.with_suffix(".int8.onnx"), path.with_suffix(".prepared.onnx")
    if not quantized.exists():
        quant_pre_process(str(path), str(prepared))
        quantization.quantize_static(str(prepared), str(quantized), Samples(), reduce_range=saturates(cpu_features()))
    return plain_onnxruntime(subject, quantized)


def ggml_frame(subject: Subject, library: Path, gguf: Path, isa: str | None, stack: contextlib.ExitStack) -> Frame:
    """Frame of depth-anything.cpp, which resizes and normalises by itself, with as many threads as PyTorch."""
    from depth_anything_cpp import open_network

    network = stack.enter_context(open_network(library, gguf, torch.get_num_threads(), isa))

    def frame(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        depth = network(image)
        if depth.shape[1:] != subject.resolution:
            raise ValueError(f"{gguf} takes this photograph at {depth.shape[1:]}, the others at {subject.resolution}")
        return full_size(subject, depth, image)

    return frame


def exported_graph(subject: Subject, folder: Path) -> Any:
    """Graph of `mvde export`; reused if it exists."""
    from mvde.artifact import find_onnx
    from mvde.export.onnx import export_onnx

    path = folder / "export" / f"{artifact_stem(subject.name, subject.resolution)}.onnx"
    if not path.exists():
        export_onnx(subject.model, [subject.resolution], path.parent)
    return find_onnx(path)


def imported_graph(subject: Subject, folder: Path) -> Any:
    """Graph that `mvde import` makes of the plain export, which has to be there; reused if it exists."""
    from mvde.artifact import find_onnx
    from mvde.export.imported.contract import ImportContract
    from mvde.export.imported.importer import ImportRequest, import_onnx

    about, name = subject.about, f"{subject.name}-imported"
    path = folder / "export" / f"{artifact_stem(name, subject.resolution)}.onnx"
    if not path.exists():
        contract = ImportContract(
            kind=about.depth_kind,
            preprocess=about.preprocess,
            patch=about.stats_patch,
            valid_range=about.valid_range,
            canonical_focal=about.canonical_focal,
            focal_convention=about.focal_convention,
        )
        import_onnx(ImportRequest(plain_path(subject, folder), contract, name), [subject.resolution], path.parent)
    return find_onnx(path)


def runtime_frame(graph: Callable[[], Any], engine_id: Any, root: Path, stack: contextlib.ExitStack) -> Frame:
    """Frame of `DepthRuntime.infer` with an engine in ``root``, which is built of ``graph`` if it is missing."""
    from mvde import DepthRuntime
    from mvde.engines.store import engine_folder

    source = graph()
    target = engine_folder(source.manifest, engine_id, root)
    if not target.is_dir():
        build(source, engine_id, root)
    runtime = stack.enter_context(DepthRuntime.load(target))

    def frame(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = runtime.infer(image)
        return result.depth, result.stats

    return frame


def build(source: Any, engine_id: Any, root: Path) -> None:
    """Build an engine, as `mvde build` does."""
    from mvde.engines.build import build_engine, graph_weight_bits
    from mvde.export.precision import lowerer
    from mvde.export.precision.images import lower_options
    from mvde.image import read_photographs
    from mvde.resampling import Resampling
    from mvde.runtime.placement import Fit, fitted

    resampling = Resampling.of(source.manifest.preprocess)
    images = fitted(read_photographs()[:1], source.manifest.resolution, Fit.CROP, resampling)
    lowered = lowerer(source, lower_options(source.manifest, weight_bits=graph_weight_bits(engine_id)))
    build_engine(source, engine_id, images, root=root, lower_graph=lowered)
