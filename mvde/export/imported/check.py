"""Parity of an imported graph with the file that it was made from, both in ONNX Runtime on photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.contract import PreprocessRecord
from mvde.engines.base import one_line
from mvde.engines.onnxruntime.session import CHECKING, open_session
from mvde.errors import ArtifactError, BackendError, ParityError
from mvde.export.imported.contract import Layout
from mvde.export.imported.source import SourceFile
from mvde.export.imported.tensors import Pixels
from mvde.records import ParityReport

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Maps = dict[str, NDArray[np.float32]]

TOLERANCE = 1e-4
"""Largest difference from a float32 file.

The arithmetic is the same but for the order of summation, which costs 1e-6 to 1e-5; a wrong mean, axis, colour order or
resize costs 1e-2.
"""

HALF_TOLERANCE = 1e-1
"""Largest difference from a file in half precision, at a single pixel: an edge moves by the file's own roundings."""

HALF_MEAN_TOLERANCE = 3e-3
"""Mean difference from a file in half precision, as for engines in fp16: 5e-4 per rounding, averaged over many."""


def original_maps(
    source: SourceFile,
    pixels: Pixels,
    record: PreprocessRecord,
    names: Sequence[str],
    images: Sequence[NDArray[np.uint8]],
) -> list[Maps]:
    """Outputs of the original file by name for each batch of images (B, H, W, 3), uint8 RGB.

    The pixels are computed in NumPy from ``record``, independently of the nodes that the import puts in front.
    """
    session = open_session(
        source.path, CHECKING, what=str(source.path), extra="export", purpose="importing an ONNX file"
    )
    return [
        _run(session, source.path, {pixels.name: _network_pixels(image, pixels, record)}, names) for image in images
    ]


def imported_maps(path: Path, names: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> list[Maps]:
    """Outputs of the imported graph at ``path`` by name for each batch of images."""
    session = open_session(path, CHECKING, what=f"the imported graph {path.name}", extra="export")
    return [_run(session, path, {"image": image}, names) for image in images]


def check_reference(reference: NDArray[np.float32]) -> None:
    """Raise :class:`ArtifactError` if the file's maps (B, H, W) of photographs are not finite or constant."""
    if not np.isfinite(reference).all():
        raise ArtifactError(
            "the original file computes NaN or infinity on photographs; check --mean, --std and --preset"
        )
    low, high = np.quantile(reference, (0.01, 0.99))
    if not high > low:
        raise ArtifactError(
            f"the original file computes {float(low):g} for every pixel of a photograph; it is no depth map, or the "
            "preprocessing is not what it expects"
        )


def check_half_mean(report: ParityReport) -> None:
    """Raise :class:`ParityError` unless the mean difference from a half-precision file is that of roundings."""
    if not report.mean_rel <= HALF_MEAN_TOLERANCE:
        raise ParityError(
            f"the imported graph differs from the half-precision file by {report.mean_rel:.2e} on average, expected at "
            f"most {HALF_MEAN_TOLERANCE:.0e}; nothing was written"
        )


def check_other_map(
    name: str, candidate: NDArray[np.float32], reference: NDArray[np.float32], tolerance: float
) -> None:
    """Raise :class:`ParityError` if a sky, mask or confidence map differs by more than ``tolerance`` of its range."""
    span = max(float(np.ptp(reference)), float(np.abs(reference).max()), 1e-6)
    difference = float(np.abs(candidate.astype(np.float64) - reference).max()) / span
    if not difference <= tolerance:
        raise ParityError(
            f"the imported output {name!r} differs from the original by {difference:.2e} of its range, expected at "
            f"most {tolerance:.1e}; nothing was written"
        )


def _network_pixels(images: NDArray[np.uint8], pixels: Pixels, record: PreprocessRecord) -> NDArray[np.float32]:
    ordered = images if record.colour == "RGB" else images[..., ::-1]
    values = (ordered.astype(np.float64) / 255 * record.pixel_range - record.mean) / record.std
    laid = values if pixels.layout is Layout.NHWC else values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(laid, dtype=np.float32)


def _run(session: Any, path: Path, feeds: Mapping[str, Any], names: Sequence[str]) -> Maps:
    try:
        return dict(zip(names, session.run(list(names), dict(feeds)), strict=True))
    except Exception as error:  # the library's exceptions share no public base class
        raise BackendError(f"ONNX Runtime failed to run {path}: {one_line(error)}") from error
