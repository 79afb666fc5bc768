"""A photograph through an engine and through transformers, compared; for the tests and `benchmarks/families.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvde.artifact import GraphArtifact, load_graph
from mvde.engines.base import EngineId
from mvde.engines.build import build_engine
from mvde.export.onnx import export_onnx
from mvde.families import load_family_model
from mvde.runtime.depth import DepthRuntime
from mvde.stats import depth_to_patch_stats
from tests.families.cases import CASES, photograph
from tests.families.reference import bilinear_reference, reference_map

_MEAN_TO_FULL, _MEAN_TO_FULL_ZOEDEPTH = 1.5e-2, 4e-2


def mean_to_full(name: str) -> float:
    """Largest mean difference of a case from the map that transformers resizes itself, relative to the map's range.

    The maps of tiny networks are rough: bicubic differs from bilinear resizing by up to 9.5e-3 on average, and resizing
    ZoeDepth's frame before it is padded by 3.1e-2. A map that is mirrored differs by 5e-2 (Depth Pro) to 4e-1.
    """
    return _MEAN_TO_FULL_ZOEDEPTH if name.startswith("zoedepth") else _MEAN_TO_FULL


@dataclass(frozen=True)
class References:
    """Maps of transformers: of a photograph of the network's size, and of a larger one.

    Of the larger one, ``of_network`` has the network's size, ``bilinear`` is that map at the photograph's size, and
    ``full`` is what transformers itself gives there.
    """

    photo: np.ndarray
    same_size: np.ndarray
    frame: np.ndarray
    of_network: np.ndarray
    bilinear: np.ndarray
    full: np.ndarray


@dataclass(frozen=True)
class Measured:
    """Differences of an engine from transformers, each the largest |Δ| relative to the map's range (max - min).

    ``stats`` is that of the means of the patches, ``mean_to_full`` the mean over pixels to transformers' own resizing.
    """

    same_size: float
    frame: float
    stats: float
    mean_to_full: float
    grid: tuple[int, int]


def export_case(name: str, shape: int, folder: Path, out: Path) -> GraphArtifact:
    """Export the model in ``folder`` at the size of a case's shape."""
    case = CASES[name]
    (path,) = export_onnx(load_family_model(str(folder), **case.options), [case.shapes[shape][0]], out)
    return load_graph(path)


def references_of(name: str, shape: int, folder: Path) -> References:
    """Compute the maps of transformers for a case's shape."""
    case = CASES[name]
    size, frame = case.shapes[shape]
    photo, larger = photograph(size), photograph(frame)
    of_network, bilinear = bilinear_reference(folder, larger, case, size)
    return References(
        photo,
        reference_map(folder, photo, case, size),
        larger,
        of_network,
        bilinear,
        reference_map(folder, larger, case, size),
    )


def measure_engine(graph: GraphArtifact, engine: str, references: References, root: Path) -> Measured:
    """Build an engine under ``root`` and compare it; raises what the build does."""
    report = build_engine(graph, EngineId.parse(engine), references.photo[None], root=root)
    patch = graph.manifest.stats_patch
    with DepthRuntime.load(report.folder) as runtime:
        same, larger = runtime.infer(references.photo), runtime.infer(references.frame)
    means = depth_to_patch_stats(references.of_network[None], patch)[0][:, 0]
    return Measured(
        same_size=_largest(same.depth, references.same_size),
        frame=_largest(larger.depth, references.bilinear),
        stats=float(abs(larger.stats[:, 0] - means).max() / np.ptp(references.of_network)),
        mean_to_full=float(abs(larger.depth - references.full).mean() / np.ptp(references.full)),
        grid=larger.grid,
    )


def _largest(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(abs(actual - expected).max() / np.ptp(expected))
