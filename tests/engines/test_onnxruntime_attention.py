"""Attention of ONNX Runtime engines: its form in the graph, against float64 softmax, and what is left alone."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.engines.base import BuildOptions, Graph
from mvde.engines.onnxruntime import attention, attention_choice, rewrite
from mvde.engines.onnxruntime.compile import compile_graph
from mvde.engines.onnxruntime.rewrite import rewritten
from mvde.engines.onnxruntime.session import AS_WRITTEN, SessionSettings, open_session
from mvde.errors import BackendError
from mvde.precision import Precision

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

HEADS, DEPTH, TOKENS = 3, 16, 48
OPERATORS = {"MultiHeadAttention", "Softmax", "Attention"}


def write_attention(
    path: Path,
    *,
    masked: bool = False,
    transposed: bool = True,
    weights_in: str | None = None,
    dtype: int = TensorProto.FLOAT,
    **attributes: Any,
) -> dict[str, np.ndarray]:
    """Write a graph from an image (1, 48, 48, 3) to depth (1, 48, 48) through one attention; return its weights.

    ``transposed`` splits the heads as the exporter does; without, tokens are the heads' rows as they come.
    """
    rng, width = np.random.default_rng(3), HEADS * DEPTH
    weights = {name: rng.standard_normal((TOKENS * 3, width)).astype(np.float32) * 0.05 for name in "qkv"}
    split = [1, TOKENS, HEADS, DEPTH] if transposed else [1, HEADS, TOKENS, DEPTH]
    constants = {
        "tokens": np.array([1, TOKENS, TOKENS * 3]), "split": np.array(split), "joined": np.array([1, TOKENS, width]),
        "largest": np.float32(255), **weights,
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["image"], ["bytes"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["bytes", "largest"], ["levels"]),
        helper.make_node("Reshape", ["levels", "tokens"], ["rows"]),
    ]
    for name in "qkv":
        nodes.append(helper.make_node("MatMul", ["rows", name], [f"{name}.product"]))
        nodes.append(helper.make_node("Cast", [f"{name}.product"], [f"{name}.typed"], to=dtype))
        nodes.append(helper.make_node("Reshape", [f"{name}.typed", "split"], [f"{name}.split"]))
        perm = [0, 2, 1, 3] if transposed else [0, 1, 2, 3]
        nodes.append(helper.make_node("Transpose", [f"{name}.split"], [f"{name}.heads"], perm=perm))
    if masked:
        constants["mask"] = np.tril(np.ones((TOKENS, TOKENS), bool))
    inputs = [f"{name}.heads" for name in "qkv"] + (["mask"] if masked else [])
    nodes += [
        helper.make_node("Attention", inputs, ["attended"], **attributes),
        helper.make_node(
            "Transpose", ["attended"], ["rows of heads"], perm=[0, 2, 1, 3] if transposed else [0, 1, 2, 3]
        ),
        helper.make_node("Reshape", ["rows of heads", "joined"], ["joint"]),
        helper.make_node("Cast", ["joint"], ["depth"], to=TensorProto.FLOAT),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 48, 48, 3])
    depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, TOKENS, width])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "attention", [image], [depth], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    external: dict[str, Any] = {"save_as_external_data": True, "location": weights_in, "size_threshold": 1024}
    onnx.save(model, str(path), **(external if weights_in else {}))
    return weights


def exact(
    image: np.ndarray, weights: dict[str, np.ndarray], transposed: bool = True, scale: float = 0.25
) -> np.ndarray:
    rows = image.astype(np.float64).reshape(TOKENS, -1) / 255
    products = [rows @ weights[name].astype(np.float64) for name in "qkv"]
    if transposed:
        q, k, v = (one.reshape(TOKENS, HEADS, DEPTH).transpose(1, 0, 2) for one in products)
    else:
        q, k, v = (one.reshape(HEADS, TOKENS, DEPTH) for one in products)
    scores = scale * q @ k.transpose(0, 2, 1)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    out = shares / shares.sum(-1, keepdims=True) @ v
    return (out.transpose(1, 0, 2) if transposed else out).reshape(1, TOKENS, HEADS * DEPTH)


def operators_of(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("scale", [None, 2.0])
@pytest.mark.parametrize(
    ("form", "transposed", "operator"),
    [
        (attention.Form.FUSED, True, "MultiHeadAttention"),
        (attention.Form.FUSED, False, "Softmax"),  # the library's operator splits heads itself, so it needs the split
        (attention.Form.PRODUCTS, True, "Softmax"),
        (attention.Form.OPERATOR, True, "Attention"),
    ],
)
def test_attention_is_written_in_the_form_asked_for_and_computes_the_same(
    tmp_path: Path, image: np.ndarray, form: attention.Form, transposed: bool, operator: str, scale: float | None
) -> None:
    source, target = tmp_path / "graph.onnx", tmp_path / "engine.onnx"
    weights = write_attention(source, transposed=transposed, **({} if scale is None else {"scale": scale}))
    told = rewritten(source, target, form)
    assert operators_of(target).keys() & OPERATORS == {operator}
    assert told["attention"].endswith(", 1 of 1")
    (depth,) = open_session(target, AS_WRITTEN).run(None, {"image": image})
    np.testing.assert_allclose(depth, exact(image, weights, transposed, scale or DEPTH**-0.5), rtol=1e-4, atol=1e-6)


def test_the_fused_form_needs_no_transposes(tmp_path: Path) -> None:
    write_attention(tmp_path / "graph.onnx")
    rewritten(tmp_path / "graph.onnx", tmp_path / "engine.onnx", attention.Form.FUSED)
    assert "Transpose" not in operators_of(tmp_path / "engine.onnx")


@pytest.mark.parametrize("what", [{"masked": True}, {"is_causal": 1}, {"softcap": 30.0}])
def test_attention_with_a_mask_or_a_cap_stays_as_it_is(tmp_path: Path, what: dict[str, Any]) -> None:
    source, target = tmp_path / "graph.onnx", tmp_path / "engine.onnx"
    write_attention(source, **what)
    assert rewritten(source, target, attention.Form.FUSED) == {"attention": "the standard operator, 1 of 1"}
    assert target.read_bytes() == source.read_bytes()


def test_weights_beside_the_graph_stay_there(tmp_path: Path, image: np.ndarray) -> None:
    source, target = tmp_path / "graph.onnx", tmp_path / "engine.onnx"
    weights = write_attention(source, weights_in="graph.data")
    rewritten(source, target, attention.Form.FUSED)
    assert target.stat().st_size < (tmp_path / "graph.data").stat().st_size
    (depth,) = open_session(target, AS_WRITTEN).run(None, {"image": image})
    np.testing.assert_allclose(depth, exact(image, weights), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "dtype"), [(Precision.FP32, TensorProto.FLOAT), (Precision.FP16, TensorProto.FLOAT16)]
)
def test_an_engine_says_which_attention_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, dtype: int
) -> None:
    write_attention(tmp_path / "graph.onnx", dtype=dtype)
    (tmp_path / "engine").mkdir()
    monkeypatch.setattr(rewrite, "choose", lambda *_: attention_choice.Choice(attention.Form.FUSED, {}))
    compiled = compile_graph(Graph(tmp_path / "graph.onnx"), tmp_path / "engine", precision, BuildOptions())
    assert compiled.rewrites == {"attention": "ONNX Runtime's MultiHeadAttention, 1 of 1"}
    assert operators_of(tmp_path / "engine" / compiled.file_names[0]).keys() & OPERATORS == {"MultiHeadAttention"}


@pytest.mark.parametrize("fastest", list(attention.Form))
def test_the_form_that_took_the_least_time_is_built_and_the_manifest_has_the_times(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, fastest: attention.Form
) -> None:
    weights = write_attention(tmp_path / "graph.onnx")
    monkeypatch.setattr(
        attention_choice, "_times_s", lambda *_: {form: 2e-3 - 1e-3 * (form is fastest) for form in attention.Form}
    )
    (tmp_path / "engine").mkdir()
    compiled = compile_graph(Graph(tmp_path / "graph.onnx"), tmp_path / "engine", Precision.FP32, BuildOptions())
    engine = tmp_path / "engine" / compiled.file_names[0]
    assert compiled.rewrites["attention"].startswith(f"{attention.NAMES[fastest]}, 1 of 1; measured in ms: ")
    assert f"{attention.NAMES[fastest]} 1.00" in compiled.rewrites["attention"]
    (depth,) = open_session(engine, AS_WRITTEN).run(None, {"image": image})
    np.testing.assert_allclose(depth, exact(image, weights), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_every_attention_is_timed_in_every_form(tmp_path: Path, dtype: int) -> None:
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    write_attention(tmp_path / "graph.onnx", dtype=dtype)
    model = ShapeInferencePass()(ir.load(tmp_path / "graph.onnx")).model
    choice = attention_choice.choose(model, SessionSettings(num_threads=1))
    assert all(choice.times_ms[form] > 0 for form in attention.Form)
    assert choice.times_ms[choice.form] * 0.97 <= min(choice.times_ms.values())
    case = attention_choice.Case((1, HEADS, TOKENS, DEPTH), "float32")
    found = [onnx.load_from_string(attention_choice._alone(case, form)).graph.node for form in attention.Form]
    assert [OPERATORS & {node.op_type for node in nodes} for nodes in found] == [
        {"MultiHeadAttention"},
        {"Softmax"},
        {"Attention"},
    ]


def test_a_graph_without_attention_is_not_measured(tmp_path: Path, write_graph: Any) -> None:
    source = write_graph(tmp_path / "export").path
    assert rewritten(source, tmp_path / "engine.onnx") == {}
    assert (tmp_path / "engine.onnx").read_bytes() == source.read_bytes()


def test_without_onnx_ir_the_graph_is_copied_and_the_manifest_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "graph.onnx", tmp_path / "engine.onnx"
    write_attention(source)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    told = rewritten(source, target, attention.Form.FUSED)["attention"]
    assert told == "the standard operator; onnx-ir, which rewrites it, is not installed"
    assert target.read_bytes() == source.read_bytes()


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not protobuf")
    with pytest.raises(BackendError, match=r"cannot read .*broken\.onnx as an ONNX graph"):
        rewritten(tmp_path / "broken.onnx", tmp_path / "engine.onnx", attention.Form.FUSED)
