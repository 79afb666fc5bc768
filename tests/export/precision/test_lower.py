"""Typed graphs: explicit dtypes, same interface, accuracy relative to fp32, and rejection by the gate."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import GraphArtifact
from mvde.engines.base import Graph
from mvde.engines.isa import onednn_features, weight_bits
from mvde.engines.openvino.library import shared_core
from mvde.errors import BackendError, ParityError, UsageError
from mvde.export.precision import HeldOut, LowerOptions, lower_graph
from mvde.export.precision.targets import Target
from mvde.export.range_method import RangeMethod
from mvde.precision import LOWERED, Precision
from tests.export.precision.conftest import judged, widen_targets

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

Typed = dict[Precision, Graph]
RESOLUTION = (48, 80)


@pytest.fixture(scope="module")
def images(random_images: Callable[..., np.ndarray]) -> np.ndarray:
    return random_images(4, *RESOLUTION, 3)


@pytest.fixture(scope="module")
def options(images: np.ndarray, random_images: Callable[..., np.ndarray]) -> LowerOptions:
    """Calibrate on noise, validate on held-out noise: for a random model, photographs are slower and no better."""
    held_out = (HeldOut(random_images(3, *RESOLUTION, 3, seed=1), "noise"),)
    return LowerOptions(images, held_out, weight_bits=weight_bits(onednn_features()))


@pytest.fixture(scope="module")
def typed(exported: tuple[Path, int], options: LowerOptions, tmp_path_factory: pytest.TempPathFactory) -> Typed:
    """Typed graphs of the tiny model by precision, as far as its opset allows; only bf16 keeps groups in fp32.

    Selecting groups takes dozens of measurements, so the other targets are wide enough to pass at once.
    """
    path, opset = exported
    folder = tmp_path_factory.mktemp("typed")
    wanted = LOWERED if opset >= 22 else (Precision.FP16, Precision.INT8)
    with pytest.MonkeyPatch.context() as patch:
        widen_targets(patch, Precision.FP16, Precision.INT8, Precision.FP8)
        return {name: lower_graph(Graph(path), name, folder, options) for name in wanted}


@pytest.fixture(scope="module")
def newest(exported: tuple[Path, int]) -> Path:
    """Graph with the standard Attention operator, for tests independent of the opset."""
    if exported[1] < 23:
        pytest.skip("tested on the newest opset")
    return exported[0]


def _depth(path: Path, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def test_typed_graphs_pass_the_checker_and_keep_their_interface(typed: Typed) -> None:
    for graph in typed.values():
        model = onnx.load(str(graph.path))
        onnx.checker.check_model(model, full_check=True)
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert [output.name for output in model.graph.output] == ["depth"]
        assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_weights_are_stored_in_the_precision(typed: Typed, exported: tuple[Path, int]) -> None:
    numbers = {"fp16": 10, "bf16": 16, "int8": 3, "fp8": 17}  # onnx.TensorProto codes
    for name, graph in typed.items():
        model = onnx.load(str(graph.path))
        assert numbers[name] in {tensor.data_type for tensor in model.graph.initializer}
        assert graph.path.stat().st_size < exported[0].stat().st_size


def test_the_record_says_what_is_in_the_file(typed: Typed, exported: tuple[Path, int]) -> None:
    plain = onnx.load(str(exported[0]))
    num_norms = sum(node.op_type == "LayerNormalization" for node in plain.graph.node)
    for name, graph in typed.items():
        record = graph.lowering
        assert record is not None
        assert record.precision == name
        assert record.num_layer_norm == num_norms
        assert record.num_attention == 4
        assert record.num_by_dtype[name] > 0
        num_kept = sum(item.num_nodes for item in record.kept)
        if name in {"fp16", "bf16"}:
            assert record.num_by_dtype.get("fp32", 0) == num_kept
        assert all(item.reason for item in record.kept)
        assert record.calibration is not None
        assert record.calibration.num_images == 4


def test_no_cast_lands_inside_an_attention_or_a_normalisation(typed: Typed) -> None:
    for name in {Precision.FP16, Precision.BF16} & set(typed):
        graph = onnx.load(str(typed[name].path)).graph
        casts = {node.output[0] for node in graph.node if node.op_type == "Cast"}
        for node in graph.node:
            if node.op_type in {"Attention", "Softmax", "Gelu"}:
                assert not casts & set(node.input), node.name


def test_onnx_s_own_evaluator_computes_the_depth_that_was_judged(
    typed: Typed, exported: tuple[Path, int], images: np.ndarray
) -> None:
    """The gate emulates dtypes in ONNX Runtime; the reference evaluator runs the typed file node by node."""
    reference = _depth(exported[0], images[:1])
    for name, graph in typed.items():
        if name == "bf16":
            continue  # the evaluator lacks bf16, as NumPy does
        evaluated = onnx.reference.ReferenceEvaluator(str(graph.path)).run(None, {"image": images[:1]})[0]
        error = float(np.mean(np.abs(evaluated - reference) / reference))
        assert error < 3 * judged(graph.lowering).mean_rel + 1e-4, name


def test_quantised_graphs_run_in_onnxruntime_s_basic_form(
    typed: Typed, exported: tuple[Path, int], images: np.ndarray
) -> None:
    reference = _depth(exported[0], images)
    error = np.abs(_depth(typed[Precision.FP16].path, images) - reference) / reference
    assert error.mean() < 5e-3  # a tenth of the error of any wrong dtype or scale


def test_openvino_reads_the_files_and_gives_their_depth(
    typed: Typed, exported: tuple[Path, int], images: np.ndarray
) -> None:
    pytest.importorskip("openvino")
    reference = _depth(exported[0], images[:1])
    for name, graph in typed.items():
        if name == "fp8":
            continue  # no CPU backend supports it
        compiled = shared_core().compile_model(str(graph.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        depth = compiled([images[:1]])[0]
        error = float(np.mean(np.abs(depth - reference) / reference))
        assert error < 3 * judged(graph.lowering).mean_rel + 1e-4, name


PARSE = """
import json, sys
from pathlib import Path
from mvde.engines.tensorrt.api import load_api
from mvde.engines.tensorrt.inspect import check_promise, inspect_network
from mvde.engines.tensorrt.parse import parse_graph
from mvde.records import LoweringRecord

api = load_api("tensorrt-rtx")
for path, promised in json.load(sys.stdin).items():
    network, parser = parse_graph(api, api.builder(), Path(path))
    check_promise(inspect_network(network), LoweringRecord(**promised), path)
    print("kept its promise")
"""


def test_tensorrt_rtx_parses_the_files_and_finds_what_they_promise(typed: Typed) -> None:
    pytest.importorskip("tensorrt_rtx")
    keys = ("precision", "onnx_sha256", "num_by_dtype", "num_attention", "num_layer_norm")
    promised = {str(graph.path): {key: getattr(graph.lowering, key) for key in keys} for graph in typed.values()}
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        input=json.dumps(promised),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept its promise") == len(typed)


def test_polygraphy_inspects_the_files(typed: Typed) -> None:
    pytest.importorskip("polygraphy")
    for graph in typed.values():
        script = "from polygraphy.tools import main; main()"
        command = [sys.executable, "-c", script, "inspect", "model", str(graph.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert "image [dtype=uint8, shape=(1, 48, 80, 3)]" in done.stdout


def test_activations_beyond_fp16_stay_in_fp32_with_the_number(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], random_images: Callable[..., np.ndarray]
) -> None:
    source = write_graph(tmp_path / "export")
    model = onnx.load(str(source.path))
    weight = next(value for value in model.graph.initializer if value.name == "weight")
    big = onnx.numpy_helper.to_array(weight) * np.float32(1e5)
    weight.CopyFrom(onnx.numpy_helper.from_array(big, "weight"))
    onnx.save(model, str(source.path))
    chosen = LowerOptions(random_images(4, 32, 48, 3), (HeldOut(random_images(2, 32, 48, 3, seed=3), "noise"),))
    record = lower_graph(Graph(source.path), Precision.FP16, tmp_path, chosen).lowering
    assert record is not None
    assert record.num_by_dtype == {"fp32": 3}
    assert "too close to fp16's largest number" in record.kept[0].reason


def test_past_the_tolerance_nothing_is_written_and_the_worst_groups_are_named(
    newest: Path, options: LowerOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widen_targets(monkeypatch, Precision.INT8, mean_rel=1e-9)
    chosen = dataclasses.replace(options, method=RangeMethod.MINMAX)
    with pytest.raises(
        ParityError, match=r"mean \|Δdepth\|/depth is .*, allowed 1\.0e-09.*change depth most: \S+ .*mean"
    ):
        lower_graph(Graph(newest), Precision.INT8, tmp_path, chosen)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_quantisation_misses_keeps_groups_with_what_was_measured(
    newest: Path, typed: Typed, options: LowerOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = typed[Precision.INT8].lowering
    assert free is not None
    reached = judged(free).mean_rel
    widen_targets(monkeypatch, Precision.INT8, target=Target(reached / 2, 1.0))
    chosen = dataclasses.replace(options, method=RangeMethod.MINMAX)
    held = lower_graph(Graph(newest), Precision.INT8, tmp_path, chosen).lowering
    assert held is not None
    assert len(held.kept) > len(free.kept)
    assert judged(held).mean_rel < reached
    assert "int8 there alone changes depth by" in held.kept[0].reason


def test_the_rest_of_a_quantised_graph_can_be_fp16(
    newest: Path, options: LowerOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widen_targets(monkeypatch, Precision.INT8, Precision.FP16)
    chosen = dataclasses.replace(options, rest=Precision.FP16, method=RangeMethod.MINMAX, weight_bits=8)
    graph = lower_graph(Graph(newest), Precision.INT8, tmp_path, chosen)
    assert graph.path.name.endswith(".int8-fp16.onnx")
    assert graph.lowering is not None
    counts = graph.lowering.num_by_dtype
    assert counts["int8"] > 0
    assert counts["fp16"] > counts.get("fp32", 0)


def test_attentions_of_an_fp16_graph_can_take_fp32_operands(
    newest: Path, typed: Typed, options: LowerOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form that TensorRT 11.3 fuses: fp16 query, key and value, cast up, and the result cast down."""
    pytest.importorskip("tensorrt_rtx")
    widen_targets(monkeypatch, Precision.FP16)
    chosen = dataclasses.replace(options, attention=Precision.FP32)
    lowered = lower_graph(Graph(newest), Precision.FP16, tmp_path, chosen)
    graph, record = onnx.load(str(lowered.path)).graph, lowered.lowering
    makers = {name: node for node in graph.node for name in node.output}
    attentions = [node for node in graph.node if node.op_type == "Attention"]
    assert record is not None
    assert len(attentions) == record.num_attention > 0
    kinds = {onnx.TensorProto.FLOAT: "up", onnx.TensorProto.FLOAT16: "down"}
    for node in attentions:
        assert [(makers[name].op_type, kinds[makers[name].attribute[0].i]) for name in node.input[:3]] == [
            ("Cast", "up")
        ] * 3
        readers = [reader for reader in graph.node if node.output[0] in reader.input]
        assert [(reader.op_type, kinds[reader.attribute[0].i]) for reader in readers] == [("Cast", "down")]
    usual = typed[Precision.FP16].lowering
    assert usual is not None
    assert record.num_by_dtype["fp32"] - usual.num_by_dtype.get("fp32", 0) == len(attentions)
    assert record.kept[-1].group == "attention"
    # Emulation sums in fp32 either way: only a GPU can tell which of the two is nearer to the fp32 graph.
    assert judged(record).mean_rel == pytest.approx(judged(usual).mean_rel, rel=1e-3)
    keys = ("precision", "onnx_sha256", "num_by_dtype", "num_attention", "num_layer_norm")
    promised = json.dumps({str(lowered.path): {key: getattr(record, key) for key in keys}})
    command = [sys.executable, "-c", PARSE]
    done = subprocess.run(command, input=promised, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.count("kept its promise") == 1, done.stderr


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        (Precision.BF16, "is for graphs with fp16 attention, but this one is bf16; give --to fp16"),
        (Precision.INT8, "but this one is int8 with fp32; give --to fp16, or --rest fp16"),
    ],
)
def test_fp32_sums_are_for_fp16_attention(
    newest: Path, options: LowerOptions, tmp_path: Path, precision: Precision, message: str
) -> None:
    chosen = dataclasses.replace(options, attention=Precision.FP32)
    with pytest.raises(UsageError, match=message):
        lower_graph(Graph(newest), precision, tmp_path, chosen)


def test_fp32_sums_need_the_attention_operator(
    write_graph: Callable[..., GraphArtifact], options: LowerOptions, tmp_path: Path
) -> None:
    source = write_graph(tmp_path / "export", resolution=RESOLUTION)
    with pytest.raises(UsageError, match=r"needs ONNX's Attention operator.*opset 20.*--opset 23"):
        lower_graph(
            Graph(source.path), Precision.FP16, tmp_path, dataclasses.replace(options, attention=Precision.FP32)
        )


def test_a_typed_graph_is_not_lowered_again(typed: Typed, options: LowerOptions, tmp_path: Path) -> None:
    for graph in typed.values():
        with pytest.raises(UsageError, match=r"is typed already .* give the fp32 graph"):
            lower_graph(graph, Precision.INT8, tmp_path, options)


def test_an_opset_without_the_dtype_names_the_one_that_has_it(
    write_graph: Callable[..., GraphArtifact], tmp_path: Path
) -> None:
    source = write_graph(tmp_path / "export")
    with pytest.raises(UsageError, match=r"opset 20, .* do not support bf16; it needs 22 .* mvde export --opset 23"):
        lower_graph(Graph(source.path), Precision.BF16, tmp_path)


def test_an_operator_that_onnx_does_not_know_is_named(
    write_graph: Callable[..., GraphArtifact], tmp_path: Path
) -> None:
    source = write_graph(tmp_path / "export")
    model = onnx.load(str(source.path))
    model.graph.node[2].domain, model.graph.node[2].op_type = "com.example", "Magic"
    model.graph.node[2].name = "the odd one"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, str(source.path))
    with pytest.raises(BackendError, match=r"'the odd one' \(com\.example\.Magic\)"):
        lower_graph(Graph(source.path), Precision.FP16, tmp_path)


@pytest.mark.parametrize(
    ("precision", "changes", "message"),
    [
        (Precision.FP32, {}, "cannot write a fp32 graph; expected one of fp16, bf16, int8, fp8"),
        (
            Precision.INT8,
            {"method": "guess"},
            "calibration method 'guess' is unknown; use auto, minmax, percentile, entropy",
        ),
        (Precision.INT8, {"rest": "int4"}, "cannot be int4; use fp32 or fp16"),
        (
            Precision.INT8,
            {"calibration": np.zeros((0, 32, 48, 3), np.uint8)},
            r"with K at least 1, but got \(0, 32, 48, 3\)",
        ),
        (Precision.INT8, {"calibration": np.zeros((4, 8, 8, 3), np.uint8)}, r"\(K, 32, 48, 3\) uint8"),
        (Precision.INT8, {"calibration": np.zeros((4, 32, 48, 3), np.float32)}, "float32"),
    ],
)
def test_wrong_options_say_what_is_right(
    write_graph: Callable[..., GraphArtifact],
    tmp_path: Path,
    precision: Precision,
    changes: dict[str, object],
    message: str,
) -> None:
    source = write_graph(tmp_path / "export")
    with pytest.raises(UsageError, match=message):
        lower_graph(Graph(source.path), precision, tmp_path, dataclasses.replace(LowerOptions(), **changes))


def test_a_file_that_is_no_graph_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not protobuf")
    with pytest.raises(BackendError, match=r"cannot read .*broken\.onnx as an ONNX graph"):
        lower_graph(Graph(tmp_path / "broken.onnx"), Precision.FP16, tmp_path)
