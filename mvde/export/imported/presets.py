"""Presets of ``mvde import``: the published contracts of depth models that people have as ONNX files.

Each entry names its source. A preset says how the file's author prepares pixels and what the map means; the names of
tensors are those of the usual exports, and any option of the command line overrides its value.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvde.contract import DepthKind, FocalConvention, Interpolation, OutputRole, PreprocessRecord
from mvde.errors import UsageError
from mvde.export.imported.contract import ImportContract, NamedOutput

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_AS_IT_IS = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

_PILLOW_BICUBIC = -0.5
_OPENCV_BICUBIC = -0.75


@dataclass(frozen=True)
class Preset:
    """A contract with the files that it is for, where it was published, and the licences of the weights."""

    files: str
    source: str
    licence: str
    contract: ImportContract


def _pixels(
    normalization: tuple[tuple[float, float, float], tuple[float, float, float]],
    fit: str = "stretch",
    multiple: int = 1,
    bicubic: float | None = None,
    antialias: bool = False,
    padding: int = 128,
    pixel_range: float = 1.0,
) -> PreprocessRecord:
    """Preprocessing in RGB; ``bicubic`` is the coefficient of the kernel, ``None`` for a bilinear one."""
    mean, std = normalization
    return PreprocessRecord(
        fit=fit,
        multiple=multiple,
        interpolation=Interpolation.BILINEAR if bicubic is None else Interpolation.BICUBIC,
        bicubic_coefficient=bicubic,
        antialias=antialias,
        padding=padding,
        mean=mean,
        std=std,
        pixel_range=pixel_range,
        colour="RGB",
    )


_DEPTH_ANYTHING_V2 = _pixels(_IMAGENET, "letterbox", 14, _PILLOW_BICUBIC, antialias=True)
_PREDICTED = ("predicted_depth", "depth", "output")

PRESETS: dict[str, Preset] = {
    "depth-anything-v2": Preset(
        "Depth Anything V2 Small, Base, Large (also V1): inverse depth without a scale",
        "github.com/DepthAnything/Depth-Anything-V2; DPTImageProcessor of the checkpoints",
        "Small and V1 apache-2.0, Base and Large cc-by-nc-4.0",
        ImportContract(
            kind=DepthKind.INVERSE_RELATIVE,
            preprocess=_DEPTH_ANYTHING_V2,
            patch=14,
            depth_names=_PREDICTED,
        ),
    ),
    "depth-anything-v2-metric-indoor": Preset(
        "Depth Anything V2 Metric, Hypersim: metres up to 20 m",
        "github.com/DepthAnything/Depth-Anything-V2, metric_depth (max_depth 20)",
        "Small apache-2.0, Base and Large cc-by-nc-4.0",
        ImportContract(
            kind=DepthKind.METRIC,
            preprocess=_DEPTH_ANYTHING_V2,
            patch=14,
            valid_range=(0.0, 20.0),
            depth_names=_PREDICTED,
        ),
    ),
    "depth-anything-v2-metric-outdoor": Preset(
        "Depth Anything V2 Metric, Virtual KITTI: metres up to 80 m",
        "github.com/DepthAnything/Depth-Anything-V2, metric_depth (max_depth 80)",
        "Small apache-2.0, Base and Large cc-by-nc-4.0",
        ImportContract(
            kind=DepthKind.METRIC,
            preprocess=_DEPTH_ANYTHING_V2,
            patch=14,
            valid_range=(0.0, 80.0),
            depth_names=_PREDICTED,
        ),
    ),
    # The author shrinks with OpenCV's INTER_AREA; bilinear with antialiasing is the nearest kernel there is.
    "depth-anything-v3-metric": Preset(
        "DA3METRIC-LARGE: metres = depth * f / 300, f in pixels of the input; sky at 0.3",
        "github.com/ByteDance-Seed/Depth-Anything-3: README (FAQ), utils/io/input_processor.py, utils/alignment.py",
        "apache-2.0",
        ImportContract(
            kind=DepthKind.METRIC_FOCAL,
            preprocess=_pixels(_IMAGENET, "letterbox", 14, antialias=True),
            patch=14,
            canonical_focal=300.0,
            focal_convention=FocalConvention.PIXELS,
            depth_names=("depth", "predicted_depth"),
            usual_outputs=(NamedOutput("sky", OutputRole.SKY, 0.3),),
        ),
    ),
    # The bars hold the mean colour of ImageNet, (124, 116, 104); one grey stands for it.
    "metric3d-v2": Preset(
        "Metric3D v2 ViT, normalised inside the graph: metres for a camera of 1000 pixels",
        "github.com/YvanYin/Metric3D, onnx/metric3d_onnx_export.py",
        "bsd-2-clause",
        ImportContract(
            kind=DepthKind.METRIC_FOCAL,
            preprocess=_pixels(_AS_IT_IS, "letterbox", padding=116, pixel_range=255.0),
            patch=14,
            valid_range=(0.1, 200.0),
            canonical_focal=1000.0,
            focal_convention=FocalConvention.PIXELS,
            depth_names=("pred_depth", "predicted_depth"),
        ),
    ),
    "midas-v2": Preset(
        "MiDaS v2 and v2.1 of the authors, normalised inside the graph: inverse depth without a scale",
        "github.com/isl-org/MiDaS, tf/make_onnx_model.py and tf/run_onnx.py",
        "mit",
        ImportContract(
            kind=DepthKind.INVERSE_RELATIVE,
            preprocess=_pixels(_AS_IT_IS, bicubic=_OPENCV_BICUBIC),
            patch=16,
        ),
    ),
    "dpt": Preset(
        "DPT Large and Hybrid (MiDaS v3): inverse depth without a scale",
        "preprocessor_config.json of huggingface.co/Intel/dpt-large and dpt-hybrid-midas",
        "apache-2.0",
        ImportContract(
            kind=DepthKind.INVERSE_RELATIVE,
            preprocess=_pixels(_HALF, bicubic=_PILLOW_BICUBIC, antialias=True),
            patch=16,
            depth_names=_PREDICTED,
        ),
    ),
    "depth-pro": Preset(
        "Depth Pro's canonical inverse depth (predicted_depth of transformers): 1 / metres for f = width",
        "github.com/apple/ml-depth-pro, depth_pro.py (infer); DepthProImageProcessor",
        "apple-amlr",
        ImportContract(
            kind=DepthKind.INVERSE_CANONICAL,
            preprocess=_pixels(_HALF),
            patch=16,
            valid_range=(0.0, 100.0),
            canonical_focal=1.0,
            focal_convention=FocalConvention.HORIZONTAL,
            depth_names=("predicted_depth", "canonical_inverse_depth"),
        ),
    ),
    "unidepth-v2": Preset(
        "UniDepth V2 without a camera input: metres for the camera that the network estimates",
        "github.com/lpiccinelli-eth/UniDepth, unidepth/models/unidepthv2/export.py",
        "cc-by-nc-4.0",
        ImportContract(
            kind=DepthKind.METRIC,
            preprocess=_pixels(_IMAGENET, "letterbox", 14),
            patch=14,
            depth_names=("depth",),
            usual_outputs=(NamedOutput("confidence", OutputRole.CONFIDENCE),),
        ),
    ),
    "yolo26-depth": Preset(
        "Ultralytics YOLO26-depth: metres, pixels from 0 to 1 without normalisation",
        "docs.ultralytics.com/tasks/depth",
        "agpl-3.0",
        ImportContract(
            kind=DepthKind.METRIC,
            preprocess=_pixels(_AS_IT_IS, "letterbox", 32, padding=114),
            patch=32,
            depth_names=("output0", "depth"),
        ),
    ),
}
"""All presets by name."""


def preset_named(name: str) -> Preset:
    """Preset of that name. Raises :class:`UsageError` listing the presets for an unknown one."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
