"""The output contract: what the numbers of a depth map mean, and what the network expects of its pixels.

A map that a network computes is not a distance until its manifest says so: see :class:`DepthKind` for what the numbers
are, :class:`FocalConvention` for the camera they belong to, :class:`PreprocessRecord` for how a frame enters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from mvde.schema import expect

MAX_CANONICAL_FOCAL = 1e6
"""In pixels or frame widths; beyond every camera."""

COLOURS = ("RGB", "BGR")
_MAX_MULTIPLE = 1 << 16


class _Text(str, Enum):
    """An enumeration whose text is its value."""

    def __str__(self) -> str:
        return str(self.value)


class DepthKind(_Text):
    """Meaning of a network's map; see ``docs/models.md`` for which model gives which."""

    METRIC = "metric"
    """Metres along the optical axis, whatever the camera."""
    METRIC_FOCAL = "metric_focal"
    """Metres for a camera of the canonical focal length; times f / f_canonical for another camera."""
    INVERSE_CANONICAL = "inverse_canonical"
    """Reciprocal of metres for a camera of the canonical focal length (Depth Pro)."""
    SCALE_INVARIANT = "scale_invariant"
    """Depth up to an unknown scale."""
    INVERSE_RELATIVE = "inverse_relative"
    """Inverse depth up to an unknown scale and shift (MiDaS, DPT, Depth Anything relative)."""

    @property
    def unit(self) -> str:
        """Unit of the map: ``"m"``, ``"1"`` (depth without a unit) or ``"1/u"`` (inverse depth)."""
        match self:
            case DepthKind.METRIC | DepthKind.METRIC_FOCAL:
                return "m"
            case DepthKind.SCALE_INVARIANT:
                return "1"
            case DepthKind.INVERSE_CANONICAL | DepthKind.INVERSE_RELATIVE:
                return "1/u"

    @property
    def is_inverse(self) -> bool:
        """Whether larger numbers are nearer."""
        return self.unit == "1/u"

    @property
    def has_canonical_camera(self) -> bool:
        """Whether metres depend on the focal length of the camera that took the frame."""
        match self:
            case DepthKind.METRIC_FOCAL | DepthKind.INVERSE_CANONICAL:
                return True
            case DepthKind.METRIC | DepthKind.SCALE_INVARIANT | DepthKind.INVERSE_RELATIVE:
                return False


class FocalConvention(_Text):
    """How the focal length of a camera (fx, fy in pixels of a W x H image) is expressed as one number."""

    GEOMETRIC = "geometric"
    """sqrt(fx / W * fy / H): mvde's own models."""
    HORIZONTAL = "horizontal"
    """fx / W: Depth Pro."""
    PIXELS = "pixels"
    """(fx + fy) / 2 in pixels of the network's input: Metric3D (1000), Depth Anything 3 metric (300)."""


class Interpolation(_Text):
    """Kernel that a frame is resampled with."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class OutputRole(_Text):
    """Meaning of an output tensor."""

    DEPTH = "depth"
    """The map of the manifest's ``depth_kind``."""
    SKY = "sky"
    """Sky where the value is at or above the output's threshold: depth is +inf there."""
    MASK = "mask"
    """Invalid where the value is below the output's threshold."""
    CONFIDENCE = "confidence"
    """Higher is surer; its mean over a patch is the statistic ``conf``."""

    @property
    def has_threshold(self) -> bool:
        """Whether the output is compared with a threshold."""
        return self in (OutputRole.SKY, OutputRole.MASK)


@dataclass(frozen=True, kw_only=True)
class PreprocessRecord:
    """How a frame becomes the network's input. Scaling of pixels and normalisation are inside the graph.

    ``fit`` and ``multiple`` place the frame: with ``"letterbox"`` its sides are scaled together and rounded to
    ``multiple`` pixels, and the rest holds ``padding`` (0 to 255 in each channel). ``interpolation``, ``antialias``
    (widening the kernel where the frame shrinks) and ``bicubic_coefficient`` (-0.5 in Pillow and in torch with
    antialiasing, -0.75 in OpenCV and in torch without) say how it is resampled, ``align_corners`` whether corner pixels
    keep their centres. ``mean`` and ``std`` are per channel of the network's ``colour`` order, of pixels whose largest
    value is ``pixel_range`` (1 or 255); they are applied by the graph and stated for people.
    """

    fit: str
    multiple: int
    interpolation: Interpolation
    antialias: bool
    padding: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pixel_range: float
    colour: str
    bicubic_coefficient: float | None = None
    align_corners: bool = False

    def __post_init__(self) -> None:
        """Raise :class:`ManifestError` for values that do not fit together."""
        fits = ("stretch", "letterbox")
        expect(self.fit in fits, "preprocess.fit", self.fit, f"one of {', '.join(fits)}")
        is_side = 1 <= self.multiple <= _MAX_MULTIPLE
        expect(is_side, "preprocess.multiple", self.multiple, f"1 to {_MAX_MULTIPLE} pixels")
        expect(0 <= self.padding <= 255, "preprocess.padding", self.padding, "0 to 255")
        is_finite = all(map(math.isfinite, (*self.mean, *self.std, self.pixel_range)))
        expect(is_finite, "preprocess.mean", self.mean, "finite numbers")
        expect(min(self.std) > 0, "preprocess.std", self.std, "positive numbers")
        expect(self.pixel_range > 0, "preprocess.pixel_range", self.pixel_range, "a positive number")
        expect(self.colour in COLOURS, "preprocess.colour", self.colour, f"one of {', '.join(COLOURS)}")
        is_bicubic = self.interpolation is Interpolation.BICUBIC
        coefficients, expected = ((-0.5, -0.75), "-0.5 or -0.75") if is_bicubic else ((None,), "None of bilinear")
        is_known = self.bicubic_coefficient in coefficients
        expect(is_known, "preprocess.bicubic_coefficient", self.bicubic_coefficient, expected)
        are_compatible = not (self.align_corners and self.antialias)
        expect(are_compatible, "preprocess.align_corners", self.align_corners, "False where antialias is True")


def stretched(mean: tuple[float, float, float], std: tuple[float, float, float]) -> PreprocessRecord:
    """Preprocessing of mvde's own models: stretched, bilinear with antialiasing, RGB from 0 to 1."""
    return PreprocessRecord(
        fit="stretch",
        multiple=1,
        interpolation=Interpolation.BILINEAR,
        antialias=True,
        padding=128,
        mean=mean,
        std=std,
        pixel_range=1.0,
        colour="RGB",
    )


def check_focal(kind: DepthKind, focal: float | None, convention: FocalConvention | None) -> None:
    """Raise :class:`ManifestError` unless a canonical camera is stated exactly where the kind has one."""
    if kind.has_canonical_camera:
        is_positive = focal is not None and 0 < focal <= MAX_CANONICAL_FOCAL
        expect(is_positive, "canonical_focal", focal, f"a positive number, which {kind} needs")
        expect(convention is not None, "focal_convention", convention, f"one of {', '.join(FocalConvention)}")
    else:
        expect(focal is None, "canonical_focal", focal, f"none, since {kind} has no canonical camera")
        expect(
            convention is None,
            "focal_convention",
            convention and convention.value,
            f"none, since {kind} has no canonical camera",
        )
