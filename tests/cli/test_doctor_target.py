"""``mvde doctor --target``: text, JSON and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde import cli
from mvde.artifact import GraphArtifact


def test_the_text_names_versions_engines_commands_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["doctor", "--target", "jetpack-7.2"]) == 0
    out = capsys.readouterr().out
    for text in (
        "Ubuntu 24.04, CUDA 13.2, TensorRT 10.16.2",
        "Orin NX",
        "tensorrt:fp32 fp16 bf16 int8",
        "source: https",
    ):
        assert text in out
    assert "mvde build --engine tensorrt:fp16 --verify-builds 3 --set workspace_mib=1024\n" in out  # in one line


def test_a_folder_of_graphs_is_judged_with_its_memory(
    write_graph: Callable[..., GraphArtifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_graph(tmp_path).path
    assert cli.execute(["doctor", str(tmp_path), "--target", "orin-nano"]) == 0
    out = capsys.readouterr().out
    assert f"{path}: " in out
    assert "MiB to run (plan" in out
    assert "no known problem there" in out
    assert cli.execute(["doctor", str(path), "--target", "orin-nano", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (graph,) = facts["graphs"]
    parts = ("context_bytes", "plan_bytes", "activation_bytes", "frame_bytes")
    assert graph["memory"]["running_bytes"] == sum(graph["memory"][part] for part in parts)
    assert facts["commands"][-1]["command"] == "mvde bench --engine tensorrt:fp16"


def test_problems_of_a_graph_are_printed(
    write_graph: Callable[..., GraphArtifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_graph(tmp_path)
    assert cli.execute(["doctor", str(tmp_path), "--target", "jetpack-6.2"]) == 0
    out = capsys.readouterr().out
    assert "known error (refuse) trt-10.3-vit" in out
    assert "Advice    onnxruntime:fp32" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--target", "jetpack-9"], 2, "target 'jetpack-9' is not known"),
        (["export"], 2, "add --target"),
        (["nowhere.onnx", "--target", "thor"], 1, "there is no file nowhere.onnx"),
        ([".", "--target", "thor"], 1, "there is no exported graph in ."),
    ],
)
def test_wrong_use_is_explained(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.execute(["doctor", *arguments]) == status
    assert message in " ".join(capsys.readouterr().err.split())
