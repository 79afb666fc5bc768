"""From a photograph to an engine's map, against transformers' processor, model and post-processing.

One photograph has the engine's size, where resizing is the identity in both; the other is larger.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde.artifact import GraphArtifact
from mvde.contract import DepthKind
from mvde.errors import BackendError, ParityError, ResolutionError
from mvde.export.onnx import PARITY_TOLERANCE, export_onnx
from mvde.families import load_family_model
from mvde.precision import Precision
from tests.families.cases import ALL_SHAPES, CASES, shape_name
from tests.families.end_to_end import export_case, mean_to_full, measure_engine, references_of
from tests.families.test_maps import ROUNDED_PIXELS

Save = Callable[[str], Path]
Export = Callable[..., GraphArtifact]

REFUSED = {("zoedepth", "openvino:fp32"), ("zoedepth, kitti", "openvino:fp32")}
"""Engines that OpenVINO 2026.4 computes wrongly or cannot compile on CPUs without AVX-512: right, or refused."""

QUICK, SLOW = ("depth anything",), ("depth anything, metric", "glpn")
"""Cases of the fast and of the slow tests, in their first shape; the others are run by `make test-extended`."""


def marks_of(name: str, shape: int = 0) -> tuple[pytest.MarkDecorator, ...]:
    """Marker of a case by the time that its export takes."""
    if shape == 0 and name in QUICK:
        return ()
    return (pytest.mark.slow,) if shape == 0 and name in SLOW else (pytest.mark.extended,)


@pytest.fixture(scope="session")
def exported(saved: Save, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Graph of a case of ``CASES`` in one of its shapes, exported once per session; read-only by convention."""
    made: dict[tuple[str, int], GraphArtifact] = {}

    def export(name: str, shape: int = 0) -> GraphArtifact:
        if (name, shape) not in made:
            made[name, shape] = export_case(name, shape, saved(CASES[name].model), tmp_path_factory.mktemp("export"))
        return made[name, shape]

    return export


@pytest.mark.parametrize(
    ("name", "shape"), [pytest.param(*each, id=shape_name(*each), marks=marks_of(*each)) for each in ALL_SHAPES]
)
def test_engines_give_the_map_of_transformers_for_a_photograph(
    name: str, shape: int, exported: Export, saved: Save, tmp_path: Path
) -> None:
    case, graph = CASES[name], exported(name, shape)
    references = references_of(name, shape, saved(case.model))
    for engine in ("onnxruntime:fp32", "openvino:fp32"):
        try:
            found = measure_engine(graph, engine, references, tmp_path / "engines")
        except (BackendError, ParityError):
            if (name, engine) not in REFUSED:
                raise
            continue
        # Two float32 libraries differ by 1e-6 of the range; a wrong mean, axis, filter or unit by 1e-2.
        tolerance = max(2 * PARITY_TOLERANCE, ROUNDED_PIXELS.get(case.model, 0.0))
        assert found.same_size <= 2 * PARITY_TOLERANCE, engine
        assert found.frame <= tolerance, engine
        assert found.stats <= tolerance, engine
        assert found.mean_to_full <= mean_to_full(name), engine
        patch = graph.manifest.stats_patch
        size = case.shapes[shape][0]
        assert found.grid == (size[0] // patch, size[1] // patch)


@pytest.mark.parametrize("name", ["dpt", "dpt, hybrid", "depth pro"])
def test_families_that_are_square_only_refuse_other_shapes(name: str, saved: Save, tmp_path: Path) -> None:
    case = CASES[name]
    model = load_family_model(str(saved(case.model)), **case.options)
    with pytest.raises(ResolutionError, match=r"square images only|runs at .* only"):
        export_onnx(model, [(case.size[0], case.size[1] + 32)], tmp_path)


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
