"""From a photograph to an engine's map, against transformers' processor, model and post-processing.

The photograph has the engine's size, so that resizing is the identity in both.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import GraphArtifact, load_graph
from mvde.contract import DepthKind
from mvde.engines.base import EngineId
from mvde.engines.build import build_engine
from mvde.errors import BackendError, ParityError
from mvde.export.onnx import PARITY_TOLERANCE, export_onnx
from mvde.families import load_family_model
from mvde.precision import Precision
from mvde.runtime.depth import DepthRuntime
from mvde.stats import depth_to_patch_stats
from tests.families.reference import reference_map
from tests.families.test_maps import CASES, photograph

Save = Callable[[str], Path]
Export = Callable[[str], GraphArtifact]

REFUSED = {("zoedepth", "openvino:fp32"), ("zoedepth, kitti", "openvino:fp32")}
"""Engines that OpenVINO 2026.4 computes wrongly or cannot compile on CPUs without AVX-512: right, or refused."""

QUICK, SLOW = ("depth anything",), ("depth anything, metric", "glpn")
"""Cases of the fast and of the slow tests; the others are run by `make test-extended`."""


def marks_of(case: str) -> tuple[pytest.MarkDecorator, ...]:
    """Marker of a case by the time that its export takes."""
    if case in QUICK:
        return ()
    return (pytest.mark.slow,) if case in SLOW else (pytest.mark.extended,)


@pytest.fixture(scope="session")
def exported(saved: Save, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Graph of a case of ``CASES``, exported once per session; read-only by convention."""
    made: dict[str, GraphArtifact] = {}

    def export(case: str) -> GraphArtifact:
        if case not in made:
            key, options, size = CASES[case]
            model = load_family_model(str(saved(key)), **options)
            (path,) = export_onnx(model, [size], tmp_path_factory.mktemp("export"))
            made[case] = load_graph(path)
        return made[case]

    return export


@pytest.mark.parametrize("case", [pytest.param(case, marks=marks_of(case)) for case in CASES])
def test_engines_give_the_map_of_transformers_for_a_photograph(
    case: str, exported: Export, saved: Save, tmp_path: Path
) -> None:
    key, options, size = CASES[case]
    photo = photograph(size)
    expected, graph = reference_map(saved(key), photo, **options), exported(case)
    for name in ("onnxruntime:fp32", "openvino:fp32"):
        try:
            report = build_engine(graph, EngineId.parse(name), photo[None], root=tmp_path / "engines")
        except (BackendError, ParityError):
            if (case, name) not in REFUSED:
                raise
            continue
        with DepthRuntime.load(report.folder) as runtime:
            result = runtime.infer(photo)
        # Two float32 libraries differ by 1e-6 of the range; a wrong mean, axis or unit by 1e-2.
        assert abs(result.depth - expected).max() <= 2 * PARITY_TOLERANCE * np.ptp(expected), name
        patch = graph.manifest.stats_patch
        stats = depth_to_patch_stats(expected[None], patch)[0]
        assert result.grid == (size[0] // patch, size[1] // patch)
        np.testing.assert_allclose(result.stats[:, 0], stats[:, 0], atol=1e-3 * np.ptp(expected))


def test_the_manifest_states_kind_preprocessing_and_origin(exported: Export, saved: Save) -> None:
    manifest = exported("depth anything").manifest
    assert (manifest.depth_kind, manifest.unit) == (DepthKind.INVERSE_RELATIVE, "1/u")
    assert (manifest.preprocess.fit, manifest.preprocess.multiple) == ("letterbox", 14)
    assert (manifest.stats_patch, manifest.grid, manifest.name) == (14, (4, 6), "depth-anything")
    source = manifest.source
    assert (source.kind, source.name, source.revision) == ("transformers", "depth-anything", None)
    assert source.config == json.loads((saved("depth-anything") / "config.json").read_text())
    weights = saved("depth-anything") / "model.safetensors"
    assert source.sha256 == subprocess.run(["sha256sum", weights], capture_output=True, text=True).stdout.split()[0]
    assert str(saved("depth-anything").parent) not in manifest.to_json()
    assert manifest.parity.measured.max_rel <= PARITY_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("case", ["depth anything, metric", "glpn"])
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16, Precision.INT8], ids=str)
def test_lowered_graphs_pass_their_gate(case: str, precision: Precision, exported: Export) -> None:
    from mvde.export.precision import write_typed
    from mvde.export.precision.images import lower_options

    graph = exported(case)
    lowered = write_typed(graph, precision, lower_options(graph.manifest))
    assert lowered.manifest.lowering is not None
    assert lowered.manifest.lowering.precision is precision
    assert (lowered.manifest.depth_kind, lowered.manifest.unit) == (DepthKind.METRIC, "m")


@pytest.mark.extended
@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
@pytest.mark.parametrize("case", CASES)
def test_tensorrt_rtx_parses_the_graph(case: str, exported: Export) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from mvde.engines.tensorrt.api import load_api\nfrom mvde.engines.tensorrt.parse import parse_graph\n"
        "api = load_api('tensorrt-rtx')\nnetwork = parse_graph(api, api.builder(), Path(sys.argv[1]))\n"
        "print('parsed')\n"
    )
    command = [sys.executable, "-c", script, str(exported(case).path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "parsed", done.stderr
