"""Other systems: every row has sources, names are found, and what follows from a row."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvde.artifact import Artifact, GraphArtifact
from mvde.engines.known_bad import all_known_bad
from mvde.engines.target_check import check_target, why_not
from mvde.engines.target_memory import estimate_memory
from mvde.engines.targets import find_targets, target_names, target_table
from mvde.errors import UsageError
from mvde.manifest import FileRecord, GraphManifest
from mvde.precision import Precision

TABLE = target_table()
ROWS = [*TABLE.systems, *TABLE.devices, *TABLE.cards]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.name))
def test_every_row_has_a_source(row: Any) -> None:
    assert row.sources
    assert all(re.fullmatch(r"https://[\w.-]+\.(com|org|io)/\S+", source) for source in row.sources)
    assert len(set(row.sources)) == len(row.sources)


def test_every_system_names_devices_that_have_a_row() -> None:
    names = {device.name for device in TABLE.devices}
    for system in TABLE.systems:
        assert set(system.devices) <= names
        assert system.newer is None or set(system.newer.devices) <= set(system.devices)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
def test_the_table_agrees_with_the_installed_tensorrt_rtx() -> None:
    """The library's own enumeration; in a child process, as elsewhere: it stays in memory."""
    code = "from mvde.engines.tensorrt.api import load_api; print(*load_api('tensorrt-rtx').capabilities())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [card.name for card in TABLE.cards if card.tensorrt_rtx]


@pytest.mark.parametrize(
    ("text", "system", "capabilities"),
    [
        ("jetpack-7.2", "jetpack-7.2", ("8.7", "11.0")),
        ("JetPack 7.2", "jetpack-7.2", ("8.7", "11.0")),
        ("jetpack-7.2.1", "jetpack-7.2", ("8.7", "11.0")),
        ("jetpack-7.2.2", "jetpack-7.2.2", ("8.7", "11.0")),
        ("jetpack-6.x", "jetpack-6.2", ("8.7",)),
        ("jetpack-5", "jetpack-5.1", ("7.2", "8.7")),
        ("orin-nx", "jetpack-7.2.2", ("8.7",)),
        ("orin-agx", "jetpack-7.2.2", ("8.7",)),
        ("orin", "jetpack-7.2.2", ("8.7",)),
        ("jetson-thor", "jetpack-7.2.2", ("11.0",)),
        ("8.7", "jetpack-7.2.2", ("8.7",)),
        ("sm_110", "jetpack-7.2.2", ("11.0",)),
        ("sm_90", None, ("9.0",)),
        ("12.0", None, ("12.0",)),
    ],
)
def test_names_are_found_in_their_usual_spellings(text: str, system: str | None, capabilities: tuple[str, ...]) -> None:
    target = find_targets(text)[0]
    assert (target.system and target.system.name) == system
    assert target.compute_capabilities == capabilities


@pytest.mark.parametrize("name", target_names())
def test_every_row_is_a_target(name: str) -> None:
    assert check_target(find_targets(name), [])["sources"]


@pytest.mark.parametrize(
    ("text", "near"), [("jetpack-7.9", "jetpack-7.2"), ("orin-mx", "orin-nx"), ("sm_91", "sm_90"), ("xyzzy", "thor")]
)
def test_an_unknown_target_is_answered_with_the_nearest_names(text: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"target '{text}' is not known.*{near}"):
        find_targets(text)


@pytest.fixture
def graph_manifest(write_graph: Callable[..., GraphArtifact], tmp_path: Path) -> GraphManifest:
    """Manifest of a small graph."""
    return write_graph(tmp_path).manifest


def working(name: str) -> set[str]:
    return {engine["id"] for engine in check_target(find_targets(name), [])["engines"] if engine["works"]}


def test_the_engines_that_work_follow_from_the_rows() -> None:
    assert working("jetpack-5") == set()  # Python 3.8
    assert working("jetpack-6.2") == {"onnxruntime:fp32", "onnxruntime:fp16", "onnxruntime:int8"}
    assert {"tensorrt:fp16", "tensorrt:int8"} <= working("jetpack-7.2")
    assert "tensorrt:fp8" not in working("orin-nx")
    assert "tensorrt:fp8" in working("thor")
    assert not any(name.startswith("tensorrt-rtx") for name in working("thor") | working("sm_90"))
    assert "tensorrt-rtx:fp16" in working("8.9")
    assert "tensorrt-rtx:bf16" not in working("7.5")


def test_a_refusal_of_the_list_of_known_errors_is_the_answer_for_that_jetpack() -> None:
    facts = check_target(find_targets("jetpack-7.1"), [])
    thor = next(entry for entry in all_known_bad() if entry.id == "trt-thor-horizontal-fusion")
    assert thor.id in [entry["id"] for entry in facts["known_bad"]]
    assert facts["advice"]["engine"] == "onnxruntime:fp32"
    assert thor.id in facts["advice"]["why"]


def test_the_opset_is_the_one_that_the_parser_knows() -> None:
    assert check_target(find_targets("jetpack-7.2"), [])["advice"]["opset"] == 23
    assert check_target(find_targets("sm_90"), [])["advice"]["engine"] == "tensorrt:fp16"
    old = dataclasses.replace(find_targets("sm_90")[0].card, tensorrt="10.9")  # type: ignore[type-var]
    target = dataclasses.replace(find_targets("sm_90")[0], card=old)
    assert check_target([target], [])["advice"]["opset"] == 20


def test_a_later_tensorrt_is_named_only_for_the_jetsons_it_is_for() -> None:
    assert check_target(find_targets("thor"), [])["target"]["newer"]["tensorrt"] == "11.4.1"
    assert check_target(find_targets("orin-nano"), [])["target"]["newer"] is None


def graph(manifest: GraphManifest, **changes: Any) -> Artifact[GraphManifest]:
    return Artifact(Path("export/some.onnx"), dataclasses.replace(manifest, **changes))


def test_a_graph_is_judged_by_its_batch_opset_and_memory(graph_manifest: GraphManifest) -> None:
    facts = check_target(find_targets("jetpack-7.2"), [graph(graph_manifest)])["graphs"][0]
    assert facts["problems"] == []
    assert facts["precision"] == "fp16"
    huge = graph(graph_manifest, file=FileRecord("some.onnx", "0" * 64, 12 << 30))
    (problem,) = check_target(find_targets("orin-nano"), [huge])["graphs"][0]["problems"]
    assert "more than half of the 4 GiB" in problem
    large = graph(graph_manifest, file=FileRecord("some.onnx", "0" * 64, 900 << 20))  # runs in 2 GiB, builds in more
    (problem,) = check_target(find_targets("orin-nano"), [large])["graphs"][0]["problems"]
    assert problem.startswith("building needs about 4.")
    image = dataclasses.replace(graph_manifest.inputs[0], shape=(4, *graph_manifest.inputs[0].shape[1:]))
    depth = dataclasses.replace(graph_manifest.outputs[0], shape=image.shape[:3])
    several = graph(graph_manifest, inputs=(image,), outputs=(depth,))
    (warning,) = check_target(find_targets("jetpack-7.2"), [several])["graphs"][0]["problems"]
    assert "trt-batched-transformer" in warning


def test_a_graph_with_attention_is_exported_again_for_an_older_parser(graph_manifest: GraphManifest) -> None:
    old = dataclasses.replace(find_targets("sm_90")[0].card, tensorrt="10.9")  # type: ignore[type-var]
    target = dataclasses.replace(find_targets("sm_90")[0], card=old)
    facts = check_target([target], [graph(graph_manifest, opset=23)])
    assert "--opset 20" in facts["graphs"][0]["problems"][0]
    assert facts["commands"][0] == {
        "on": "workstation",
        "command": f"mvde export --name {graph_manifest.name} --res "
        f"{graph_manifest.resolution[0]}x{graph_manifest.resolution[1]} --batch 1 --opset 20",
    }


def test_the_commands_are_in_order_and_for_the_installed_cuda() -> None:
    steps = check_target(find_targets("orin-nano"), [])["commands"]
    verbs = [step["command"].split()[1] for step in steps if step["command"].startswith("mvde")]
    assert verbs == ["export", "lower", "doctor", "build", "bench"]
    assert [step["on"] for step in steps] == sorted((step["on"] for step in steps), reverse=True)
    assert any("cuda-core[cu13]" in step["command"] for step in steps)
    assert any("workspace_mib=1024" in step["command"] for step in steps)
    assert check_target(find_targets("jetpack-5"), [])["commands"] == []


def test_memory_grows_with_pixels_weights_and_precision(graph_manifest: GraphManifest) -> None:
    height, width = graph_manifest.resolution
    fp32, fp16 = (estimate_memory(graph_manifest, p) for p in (Precision.FP32, Precision.FP16))
    assert fp32.activation_bytes == 2 * fp16.activation_bytes == 4 * height * width * 0.5 * 256  # no width is stated
    assert fp32.plan_bytes == pytest.approx(1.3 * graph_manifest.file.size_bytes, abs=1)
    assert fp16.plan_bytes == pytest.approx(fp32.plan_bytes / 2, abs=1)
    assert fp32.running_bytes < fp32.building_bytes


def test_a_precision_that_the_gpu_lacks_is_refused_by_name() -> None:
    from mvde.engines.base import EngineId

    refusal = why_not(find_targets("orin-nx")[0], EngineId("tensorrt", Precision.FP8))
    assert refusal is not None
    assert "compute capability 8.9" in refusal
