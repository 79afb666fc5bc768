"""``mvde doctor``: machine properties, every engine id with a reason, and known-bad combinations."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from mvde import cli
from mvde.cli import doctor
from mvde.engines.backends import backend_names
from mvde.precision import Precision


def test_every_engine_id_is_listed_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["doctor", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [engine["id"] for engine in facts["engines"]] == [
        f"{b}:{p}" for b in sorted(backend_names()) for p in Precision
    ]
    assert all(engine["note"] for engine in facts["engines"])
    assert facts["machine"]["memory_bytes"] > 1 << 28
    assert facts["libraries"]["numpy"] == importlib.metadata.version("numpy")


def test_the_tables_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["doctor"]) == 0
    out = capsys.readouterr().out
    for text in ("CPU", "Memory", "GPU", "openvino:fp32", "works here"):
        assert text in out


def test_two_onnxruntimes_in_one_environment_are_pointed_out() -> None:
    assert doctor._warnings({"onnxruntime": "1", "openvino": "1"}) == []
    warnings = doctor._warnings({"onnxruntime": "1", "onnxruntime-gpu": "1"})
    assert len(warnings) == 1
    assert "both installed" in warnings[0]


def test_known_errors_of_the_installed_tensorrt_are_listed_with_their_sources() -> None:
    warnings = doctor._warnings({"openvino": "1", "tensorrt": "10.3.0"})
    assert any("trt-10.3-vit" in warning and "github.com/NVIDIA/TensorRT/issues" in warning for warning in warnings)
    assert not any("trt-10.3-vit" in warning for warning in doctor._warnings({"openvino": "1", "tensorrt": "10.9.0"}))
    assert doctor._warnings({"openvino": "1", "tensorrt-rtx-cu13": "1.7.1"}) == []


def test_a_machine_without_any_inference_library_is_told_what_to_install() -> None:
    assert "pip install" in doctor._warnings({"numpy": "2"})[0]
