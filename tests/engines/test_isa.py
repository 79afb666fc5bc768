"""Instructions below a user's cap of oneDNN: what doctor, build and load say, and the saturation of 8-bit products."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import load_engine_artifact
from mvde.engines import isa, store
from mvde.engines.base import EngineId, Graph
from mvde.engines.build import build_engine
from mvde.engines.machine import cpu_features
from mvde.engines.openvino import attention, library, linear
from mvde.errors import IncompatibleEngineError, UsageError
from mvde.export.precision import LowerOptions, lower_graph
from mvde.precision import Precision

SAPPHIRE = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip
HASWELL = ("sse4_2", "avx", "avx2", "fma", "f16c")


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend a CPU with these features, all of whose precisions OpenVINO offers, and a cap."""

    def pretend(features: tuple[str, ...], **variables: str) -> None:
        for name in isa.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for module in (isa, library, store):
            monkeypatch.setattr(module, "cpu_features", lambda: features)

    return pretend


@pytest.mark.parametrize(
    ("value", "last"),
    [
        ("AVX2", "f16c"),
        ("avx2_vnni", "avx_vnni"),
        ("AVX512_CORE", "avx512vl"),
        ("AVX512_CORE_VNNI", "avx512_vnni"),
        ("AVX512_CORE_BF16", "avx512_bf16"),
        ("AVX10_1_512", "avx512_fp16"),
        ("AVX512_CORE_AMX", "amx_bf16"),
        ("ALL", "amx_bf16"),
        ("AVX3", "amx_bf16"),  # oneDNN ignores what it does not know
    ],
)
def test_a_cap_leaves_the_features_up_to_its_own(on_cpu: Callable, value: str, last: str) -> None:
    on_cpu(SAPPHIRE, ONEDNN_MAX_CPU_ISA=value)
    left = isa.onednn_features()
    assert left[-1] == last
    assert set(HASWELL) <= set(left) <= set(SAPPHIRE)


def test_the_newer_name_of_the_variable_wins(on_cpu: Callable) -> None:
    on_cpu(SAPPHIRE, DNNL_MAX_CPU_ISA="AVX2")
    assert (isa.cap(), isa.onednn_features()) == ("DNNL_MAX_CPU_ISA=AVX2", HASWELL)
    on_cpu(SAPPHIRE, DNNL_MAX_CPU_ISA="AVX2", ONEDNN_MAX_CPU_ISA="AVX512_CORE")
    assert isa.cap() == "ONEDNN_MAX_CPU_ISA=AVX512_CORE"


@pytest.mark.parametrize(
    ("features", "saturates"),
    [
        (HASWELL, True),
        ((*HASWELL, "avx512f", "avx512bw", "avx512vl"), True),
        ((*HASWELL, "avx_vnni"), False),
        ((*HASWELL, "avx512_vnni"), False),
        (SAPPHIRE, False),
        (("asimd", "asimddp"), False),
        ((), False),  # unknown
    ],
)
def test_products_saturate_on_x86_before_vnni(features: tuple[str, ...], saturates: bool) -> None:
    assert isa.saturates(features) is saturates
    assert isa.weight_bits(features) == (7 if saturates else 8)


def test_weights_of_seven_bits_never_leave_sixteen() -> None:
    assert 255 * (2**6 - 1) * 2 <= np.iinfo(np.int16).max < 255 * (2**7 - 1) * 2


def test_a_capped_precision_is_refused_with_the_cap(on_cpu: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    offers = type("Core", (), {"get_property": lambda *_: ["FP32", "BF16", "FP16", "INT8"]})
    monkeypatch.setattr(library, "shared_core", offers)
    on_cpu(SAPPHIRE)
    assert [library.arithmetic(one).note for one in (Precision.BF16, Precision.INT8)] == [
        "computes in bf16",
        "computes in int8",
    ]
    on_cpu(SAPPHIRE, ONEDNN_MAX_CPU_ISA="AVX2")
    assert not library.arithmetic(Precision.BF16).works
    assert library.arithmetic(Precision.BF16).note == (
        "ONEDNN_MAX_CPU_ISA=AVX2 switches off amx_bf16 and avx512_bf16, without which OpenVINO has no bf16 arithmetic; "
        "unset it"
    )
    assert library.arithmetic(Precision.INT8).note == (
        "computes in int8 with weights of 7 bits: ONEDNN_MAX_CPU_ISA=AVX2 switches VNNI off, and products of 8 bits "
        "saturate"
    )
    on_cpu(HASWELL)
    assert "this CPU has no VNNI" in library.arithmetic(Precision.INT8).note


def test_rewrites_for_amx_are_no_default_below_it(on_cpu: Callable) -> None:
    on_cpu(SAPPHIRE)
    assert (linear.default(Precision.BF16), attention._kernel_for("bf16")) == (linear.CONVOLUTIONS, attention.AMX)
    on_cpu(SAPPHIRE, ONEDNN_MAX_CPU_ISA="AVX512_CORE_BF16")
    assert (linear.default(Precision.BF16), attention._kernel_for("bf16")) == (linear.PRODUCTS, attention.AVX512)
    on_cpu(SAPPHIRE, ONEDNN_MAX_CPU_ISA="AVX512_CORE_VNNI")
    assert attention._kernel_for("bf16") is None


@pytest.mark.parametrize(
    ("features", "variables", "hint", "is_measured", "tried"),
    [
        (SAPPHIRE, {}, "bf16", True, ["openvino"]),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "bf16", False, ["openvino", "avx512"]),
        (SAPPHIRE, {}, "f32", False, ["openvino", "avx2"]),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "f32", True, ["openvino"]),
        (HASWELL, {}, "f32", True, ["openvino"]),
    ],
)
def test_the_build_measures_an_attention_on_cpus_that_were_not_measured(
    on_cpu: Callable,
    monkeypatch: pytest.MonkeyPatch,
    features: tuple[str, ...],
    variables: dict[str, str],
    hint: str,
    is_measured: bool,
    tried: list[str],
) -> None:
    monkeypatch.setattr(attention, "unavailable", lambda kernel, version: "")
    on_cpu(features, **variables)
    kernel = attention._kernel_for(hint)
    assert kernel is not None
    assert attention._is_measured(kernel) is is_measured
    assert attention.alternatives({"INFERENCE_PRECISION_HINT": hint}, "2026.4.1") == tried
    note = attention.support_note({"bf16": Precision.BF16, "f32": Precision.FP32}[hint])
    assert note == f", attention by {kernel.title}" + ("" if is_measured else " or OpenVINO, as the build measures")


def test_an_engine_of_features_that_a_cap_switches_off_says_so(
    engine_folder: Path, tmp_path: Path, on_cpu: Callable
) -> None:
    manifest = load_engine_artifact(engine_folder / "engine.json").manifest
    record = dataclasses.replace(manifest.engine, cpu_features=SAPPHIRE)
    on_cpu(SAPPHIRE, ONEDNN_MAX_CPU_ISA="AVX512_CORE_FP16")
    with pytest.raises(
        IncompatibleEngineError,
        match=r"a CPU with amx_tile, amx_int8, amx_bf16, which ONEDNN_MAX_CPU_ISA=AVX512_CORE_FP16 switches off; unset "
        r"it, or build it again here: mvde build --engine openvino:fp32",
    ):
        store.check_machine(dataclasses.replace(manifest, engine=record), "engines/tiny")


CAPPED = """
import json, sys
from mvde.cli.doctor import examine
print(json.dumps({one["id"]: [one["works"], one["note"]] for one in examine()["engines"]}))
"""


def test_doctor_judges_a_capped_library() -> None:
    if "avx2" not in cpu_features():
        pytest.skip("no x86 CPU with AVX2")
    pytest.importorskip("openvino")
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", CAPPED], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    engines = json.loads(done.stdout)
    assert engines["openvino:fp32"][0]
    assert "weights of 7 bits" in engines["openvino:int8"][1]
    assert not engines["openvino:bf16"][0]


def test_a_graph_with_wide_weights_is_refused_where_they_saturate(
    tmp_path: Path, write_graph: Callable, random_images: Callable, on_cpu: Callable
) -> None:
    pytest.importorskip("openvino")
    source, images = write_graph(tmp_path / "export"), random_images(2, 32, 48, 3)
    on_cpu(HASWELL)
    with pytest.raises(UsageError, match=r"tiny-32x48.int8.onnx has weights of 8 bits, .* --weight-bits 7"):
        build_engine(
            source, EngineId.parse("openvino:int8"), images, root=tmp_path / "engines", lower_graph=lower_graph
        )


def test_narrow_weights_have_a_path_a_record_and_a_range_of_their_own(tmp_path: Path, write_graph: Callable) -> None:
    onnx = pytest.importorskip("onnx")
    source = Graph(write_graph(tmp_path / "export").path)
    largest = {}
    for bits, name in ((8, "tiny-32x48.int8.onnx"), (7, "tiny-32x48.int8-w7.onnx")):
        typed = lower_graph(source, Precision.INT8, tmp_path, LowerOptions(weight_bits=bits))
        assert typed.path.name == name
        assert typed.lowering is not None
        assert typed.lowering.calibration is not None
        assert typed.lowering.calibration.weight_bits == bits
        stored = [onnx.numpy_helper.to_array(one) for one in onnx.load(str(typed.path)).graph.initializer]
        weights = [one for one in stored if one.dtype == np.int8 and one.ndim == 4]
        (largest[bits],) = (int(np.abs(one.astype(int)).max()) for one in weights)
    assert largest[7] == 63 < largest[8] <= 127  # the smallest scale, that of fp16, keeps the wider ones below
    with pytest.raises(UsageError, match="cannot have 6 bits; use 7 or 8"):
        LowerOptions(weight_bits=6)
