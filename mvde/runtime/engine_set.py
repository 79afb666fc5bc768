"""Engines of one model at several resolutions: whether they belong together, and the grid of patches they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.artifact import artifact_stem
from mvde.calibration.record import SUFFIX, Calibration, Calibrations, fp32_graph_sha256, read_calibration
from mvde.errors import CalibrationError, UsageError

if TYPE_CHECKING:
    from mvde.manifest import EngineManifest, Manifest

_FILE_PER_RESOLUTION = "onnx"
"""Kind of source whose hash says nothing: somebody's ONNX file is of one resolution, so a model has several."""


def check_one_model(manifests: Sequence[EngineManifest]) -> None:
    """Raise :class:`UsageError` unless the engines are of one model, of one kind and of resolutions that differ."""
    first, seen = manifests[0], set()
    for one in manifests:
        for difference in _differences(first, one):
            raise UsageError(
                f"{_text(first)} and {_text(one)} differ in {difference}; engines with a deadline are of one model"
            )
        if one.batch != 1:
            raise UsageError(
                f"{_text(one)} has batch {one.batch}; a deadline is of single frames, use engines of batch 1"
            )
        if one.resolution in seen:
            raise UsageError(f"two engines are of {_size(one.resolution)}; give one of each resolution")
        seen.add(one.resolution)


def common_grid(manifests: Sequence[Manifest], grid: tuple[int, int] | None = None) -> tuple[int, int]:
    """Grid (rows, columns) whose patches are square and of whole pixels at each resolution.

    ``grid`` is checked if given; else it is the one that is nearest in fineness to the smallest engine's own, the finer
    of two. Raises :class:`UsageError` for resolutions of different aspects, and a grid that does not fit.
    """
    sizes = [one.resolution for one in manifests]
    height, width = min(sizes)
    for size in sizes:
        if size[0] * width != size[1] * height:
            raise UsageError(
                f"{_size((height, width))} and {_size(size)} differ in aspect, so no grid of square patches fits both; "
                "build engines of one aspect"
            )
    finest = _finest_grid(sizes)
    fitting = [(finest[0] // step, finest[1] // step) for step in _divisors(math.gcd(*finest))]
    if grid is None:
        own = min(manifests, key=lambda one: one.resolution).grid
        return min(fitting, key=lambda one: (max(one[0] / own[0], own[0] / one[0]), -one[0]))
    if tuple(grid) not in fitting:
        near = sorted(fitting, key=lambda one: abs(one[0] - grid[0]))[:3]
        raise UsageError(
            f"a grid of {grid[0]}x{grid[1]} does not divide {', '.join(map(_size, sizes))} into square patches; "
            f"the nearest that do: {', '.join(map(_size, near))}"
        )
    return grid


def calibrations_of(manifests: Sequence[EngineManifest], given: Calibrations) -> list[Calibration]:
    """Calibration of each engine: in a folder the file ``NAME-HxW.calibration.json``, else that of its graph.

    Raises :class:`CalibrationError` for an engine without one, one of another graph, and ones that differ in the frames
    that they are of or in whether they have a scale.
    """
    if isinstance(given, (str, Path)) and Path(given).is_dir():
        files = [Path(given) / f"{artifact_stem(one.name, one.resolution, one.batch)}{SUFFIX}" for one in manifests]
        for manifest, file in zip(manifests, files, strict=True):
            if not file.exists():
                raise CalibrationError(
                    f"{_text(manifest)} has no calibration: there is no {file}; each engine with a deadline needs its "
                    f"own, run `mvde calibrate scale` with it and -o {given}"
                )
        given = files
    several = [given] if isinstance(given, (str, Path, Calibration)) else given
    found = [one if isinstance(one, Calibration) else read_calibration(one) for one in several]
    matched = [_calibration_of(manifest, found) for manifest in manifests]
    if len(found) > len(matched):
        raise CalibrationError(
            f"{len(found)} calibrations were given for {len(matched)} engines: {_graphs(found)}; give one for each"
        )
    for one in matched[1:]:
        _check_alike(matched[0], one)
    return matched


def map_units(calibrations: Sequence[Calibration]) -> list[tuple[float, float]]:
    """Factor and then addend by which the map of each engine becomes one in the unit of the first engine's map."""
    units = [(one.scale or 1.0, one.shift) for one in calibrations]
    first, at_first = units[0]
    return [(scale / first, (shift - at_first) / first) for scale, shift in units]


def _calibration_of(manifest: EngineManifest, found: Sequence[Calibration]) -> Calibration:
    """The calibration of an engine's graph."""
    own = [one for one in found if one.graph_sha256 == fp32_graph_sha256(manifest)]
    if not own:
        raise CalibrationError(
            f"{_text(manifest)}, of the fp32 graph {fp32_graph_sha256(manifest)[:12]}..., has no calibration: those "
            f"given are of {_graphs(found)}; each engine with a deadline needs its own (`mvde calibrate scale`)"
        )
    if len(own) > 1:
        raise CalibrationError(f"{len(own)} calibrations are of the graph of {_text(manifest)}; give one of them")
    own[0].check_engine(manifest)
    return own[0]


def _check_alike(first: Calibration, other: Calibration) -> None:
    """Raise :class:`CalibrationError` unless two calibrations are of the same frames and give metres alike."""
    differing = [
        what
        for what, one, two in (
            ("the size of the frames", first.frame, other.frame),
            ("the fit", first.fit, other.fit),
            ("the camera", first.camera, other.camera),
            ("having a scale", first.scale is None, other.scale is None),
        )
        if one != two
    ]
    if differing:
        raise CalibrationError(
            f"the calibrations of {first.name} {_size(first.resolution)} and {_size(other.resolution)} differ in "
            f"{differing[0]}; calibrate engines with a deadline on the same frames"
        )


def _graphs(calibrations: Sequence[Calibration]) -> str:
    return (
        ", ".join(f"{one.name} {_size(one.resolution)} ({one.graph_sha256[:12]}...)" for one in calibrations) or "none"
    )


def _finest_grid(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The finest common grid: patches of as few pixels as all sizes allow."""
    height, width = sizes[0]
    across = math.gcd(height, width)  # patches of one pixel of the smallest picture of this aspect
    shared = math.gcd(*(size[0] * across // height for size in sizes))
    return height // across * shared, width // across * shared


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]


def _differences(first: Manifest, other: Manifest) -> list[str]:
    """What of two engines of one model must not differ, and does."""
    named = [
        ("model", first.name, other.name),
        ("kind", str(first.depth_kind), str(other.depth_kind)),
        ("focal convention", first.focal_convention, other.focal_convention),
        ("outputs", ", ".join(first.output_names), ", ".join(other.output_names)),
        ("source", first.source.kind, other.source.kind),
    ]
    if first.source.kind != _FILE_PER_RESOLUTION:
        named.append(("weights", first.source.sha256[:12], other.source.sha256[:12]))
    found = [f"{what}: {one} and {two}" for what, one, two in named if one != two]
    if first.canonical_focal != other.canonical_focal:
        found.append("canonical focal length")
    return found if first.preprocess == other.preprocess else [*found, "preprocessing"]


def _text(manifest: EngineManifest) -> str:
    return f"{manifest.name} {_size(manifest.resolution)} {manifest.engine.id}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
