"""The contract of an imported file: what its pixels and its map are, from a preset or stated by the user."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from mvde.contract import DepthKind, FocalConvention, OutputRole, PreprocessRecord, check_focal
from mvde.errors import UsageError


class Layout(str, Enum):
    """Order of the axes of the network's pixels."""

    NCHW = "NCHW"
    """Planes: (batch, 3, height, width)."""
    NHWC = "NHWC"
    """Interleaved: (batch, height, width, 3)."""

    def __str__(self) -> str:
        return self.value

    def shape(self, batch: int, resolution: tuple[int, int]) -> tuple[int, int, int, int]:
        """Shape of a batch of pixels at ``resolution`` (H, W)."""
        height, width = resolution
        return (batch, 3, height, width) if self is Layout.NCHW else (batch, height, width, 3)


@dataclass(frozen=True)
class NamedOutput:
    """An output of the file and its role; ``threshold`` is that of a sky or mask output."""

    name: str
    role: OutputRole
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.role.has_threshold:
            if self.threshold is None or not math.isfinite(self.threshold):
                raise UsageError(
                    f"output {self.name!r} is a {self.role} and needs a threshold, a finite number: "
                    f"--output {self.name}={self.role}:0.5"
                )
        elif self.threshold is not None:
            raise UsageError(f"output {self.name!r} is a {self.role}, which has no threshold; leave it out")


@dataclass(frozen=True, kw_only=True)
class ImportContract:
    """What the numbers of a file mean.

    ``map_scale`` is the factor that brings the file's map to the unit of ``kind``. ``valid_range`` (min, max) is what
    the network can say, in that unit; ``None`` measures it on the photographs. ``outputs`` are kept under their roles,
    as are ``usual_outputs`` that the file has; ``depth_names`` are names that the depth output usually has, in order of
    preference.
    """

    kind: DepthKind
    preprocess: PreprocessRecord
    patch: int
    valid_range: tuple[float, float] | None = None
    canonical_focal: float | None = None
    focal_convention: FocalConvention | None = None
    map_scale: float = 1.0
    depth_names: tuple[str, ...] = ()
    outputs: tuple[NamedOutput, ...] = ()
    usual_outputs: tuple[NamedOutput, ...] = ()

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` or :class:`ManifestError` for values that do not fit together."""
        check_focal(self.kind, self.canonical_focal, self.focal_convention)
        if self.patch < 1:
            raise UsageError(f"the patch of the statistics has at least 1 pixel, but got {self.patch}")
        if not 0 < self.map_scale < math.inf:
            raise UsageError(f"--map-scale is a positive number, e.g. 0.001 for millimetres, but got {self.map_scale}")
        if self.valid_range is not None and not 0 <= self.valid_range[0] < self.valid_range[1] < math.inf:
            raise UsageError(f"--depth-range is MIN,MAX with 0 <= MIN < MAX, but got {self.valid_range}")
        roles = [output.role for output in self.outputs]
        for role in roles:
            if roles.count(role) > 1:
                twice = " and ".join(repr(output.name) for output in self.outputs if output.role is role)
                raise UsageError(f"each role is given once, but {twice} are both {role}; say which one it is")


def parse_output(text: str, known: tuple[NamedOutput, ...] = ()) -> NamedOutput:
    """Parse ``NAME=ROLE`` or ``NAME=ROLE:THRESHOLD``; a bare ``NAME`` is the depth output.

    The threshold is by default that of the same role in ``known``. Raises :class:`UsageError` for an unknown role, and
    for a threshold that is malformed, missing or out of place.
    """
    name, equals, rest = text.rpartition("=")
    if not equals:
        name, rest = text, OutputRole.DEPTH.value
    stated, colon, number = rest.partition(":")
    roles = [role for role in OutputRole if role.value == stated]
    if not name or not roles:
        raise UsageError(f"--output {text!r} is not understood; give NAME=ROLE, where ROLE is {', '.join(OutputRole)}")
    threshold = next((output.threshold for output in known if output.role is roles[0]), None)
    try:
        return NamedOutput(name, roles[0], float(number) if colon else threshold)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"--output {text!r}: the threshold {number!r} is not a number") from error


def parse_focal(text: str) -> tuple[float, FocalConvention]:
    """Parse ``VALUE,CONVENTION``, such as ``1000,pixels``. Raises :class:`UsageError` for anything else."""
    value, _, named = text.partition(",")
    conventions = [convention for convention in FocalConvention if convention.value == named.strip()]
    try:
        return float(value), conventions[0]
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"--canonical-focal {text!r} is not understood; give VALUE,CONVENTION, e.g. 1000,pixels, where CONVENTION "
            f"is {', '.join(FocalConvention)}"
        ) from error


def parse_channels(text: str, option: str) -> tuple[float, float, float]:
    """Parse one number for all channels or three, separated by commas. Raises :class:`UsageError` for anything else."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise UsageError(f"{option} {text!r} is not understood; give three numbers, e.g. 0.485,0.456,0.406, or one")
    first, second, third = numbers * 3 if len(numbers) == 1 else numbers
    return first, second, third


def parse_span(text: str, option: str) -> tuple[float, float]:
    """Parse ``MIN,MAX``. Raises :class:`UsageError` unless 0 <= MIN < MAX."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not understood; give MIN,MAX, e.g. 0.1,80") from error
    if not 0 <= low < high < math.inf:
        raise UsageError(f"{option} is MIN,MAX with 0 <= MIN < MAX, but got {text}")
    return low, high
