"""mvde's attention kernel in OpenVINO: accuracy against float64 softmax, graph matching, and refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mvde
from mvde import native
from mvde.artifact import load_graph
from mvde.assets import shipped_checkpoint
from mvde.engines.base import BuildOptions, EngineId, Graph
from mvde.engines.build import build_engine
from mvde.engines.openvino import attention, attention_choice
from mvde.engines.openvino.attention_graph import replace_attention
from mvde.engines.openvino.compile import ENGINE_FILE, compile_graph
from mvde.engines.openvino.engine import import_blob
from mvde.engines.openvino.library import arithmetic, library_version, shared_core
from mvde.engines.store import load_engine
from mvde.errors import BackendError, IncompatibleEngineError
from mvde.precision import Precision
from mvde.records import EngineRecord

openvino = pytest.importorskip("openvino")
operators = pytest.importorskip("openvino.opset13")

FASTEST = {"PERFORMANCE_HINT": "LATENCY"}


@pytest.fixture
def amx() -> None:
    """Skip with the reason if the AMX kernel cannot run."""
    if reason := attention.unavailable(attention.AMX, library_version()):
        pytest.skip(reason)


@pytest.fixture(params=attention.KERNELS.values(), ids=attention.KERNELS)
def kernel(request: pytest.FixtureRequest) -> attention.Kernel:
    """Each kernel; skip with the reason if it cannot run."""
    if reason := attention.unavailable(request.param, library_version()):
        pytest.skip(reason)
    return request.param


@pytest.fixture
def before_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that oneDNN has AVX2 and nothing newer."""
    monkeypatch.setattr(attention, "onednn_features", lambda: ("sse4_2", "avx", "avx2", "fma"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graph of the shipped model at a small resolution: six attentions over 35 tokens."""
    pytest.importorskip("torch")
    from mvde.export.onnx import export_onnx
    from mvde.model import DepthModel

    (path,) = export_onnx(DepthModel.load(shipped_checkpoint()), [(80, 112)], tmp_path_factory.mktemp("network"))
    return path


def model_of(tokens: int, heads: int, depth: int, *, causal: bool = False, scale: float | None = None) -> Any:
    """Attention of tensors (1, tokens, heads * depth), as the exporter writes it."""
    shape = openvino.Shape([1, tokens, heads * depth])
    inputs = [operators.parameter(shape, openvino.Type.f32) for _ in range(3)]
    split = [
        operators.transpose(operators.reshape(one, [1, tokens, heads, depth], False), [0, 2, 1, 3]) for one in inputs
    ]
    extra = {} if scale is None else {"attention_mask": np.float32(0), "scale": np.float32(scale)}
    node = operators.scaled_dot_product_attention(*split, causal=causal, **extra)
    joined = operators.reshape(operators.transpose(node, [0, 2, 1, 3]), [1, tokens, heads * depth], False)
    return openvino.Model([operators.relu(joined)], inputs)


def rounded(values: np.ndarray) -> np.ndarray:
    """Values rounded to bfloat16, as float32, so that the kernel's inputs are exact."""
    return (values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def exact(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, scale: float) -> np.ndarray:
    q, k, v = (x.astype(np.float64).reshape(len(x[0]), heads, -1).transpose(1, 0, 2) for x in (q, k, v))
    scores = scale * q @ k.transpose(0, 2, 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = weights / weights.sum(-1, keepdims=True) @ v
    return np.maximum(out.transpose(1, 0, 2).reshape(1, len(out[0]), -1), 0)


@pytest.mark.parametrize(("tokens", "heads", "depth"), [(35, 3, 64), (600, 2, 72), (784, 3, 64), (97, 1, 32)])
@pytest.mark.parametrize("scale", [None, 4.0])
def test_the_operator_is_attention(
    tokens: int, heads: int, depth: int, scale: float | None, kernel: attention.Kernel
) -> None:
    model = model_of(tokens, heads, depth, scale=scale)
    assert replace_attention(shared_core(), model, kernel) == (1, 1)
    rng = np.random.default_rng(tokens)
    inputs = [rounded(rng.standard_normal((1, tokens, heads * depth))) for _ in range(3)]
    wanted = exact(*inputs, heads, depth**-0.5 if scale is None else scale)
    results = []
    for num_threads in ("1", "2"):
        options = {**FASTEST, "INFERENCE_PRECISION_HINT": kernel.hint, "INFERENCE_NUM_THREADS": num_threads}
        results.append(shared_core().compile_model(model, "CPU", options)(inputs)[0])
    # bf16: weights and result are each rounded to 8 bits, relative to the largest value by 2^-8 at most. fp32: scores
    # of up to 150 are rounded to 24 bits, which is the relative error of their weights.
    unit = 2**-8 if kernel.hint == "bf16" else 2**-15
    np.testing.assert_allclose(results[0], wanted, atol=2 * unit * np.abs(inputs[2]).max(), rtol=0)
    assert np.sqrt(np.mean((results[0] - wanted) ** 2)) < unit * np.sqrt(np.mean(wanted**2))
    np.testing.assert_array_equal(results[0], results[1])  # independent of the number of threads


@pytest.mark.parametrize("what", [{"causal": True}, {"depth": 160}])
def test_what_the_kernel_does_not_compute_stays(what: dict[str, Any], kernel: attention.Kernel) -> None:
    model = model_of(20, 2, what.get("depth", 64), causal=what.get("causal", False))
    assert replace_attention(shared_core(), model, kernel) == (0, 1)
    assert any(node.get_type_name() == "ScaledDotProductAttention" for node in model.get_ordered_ops())


def compiled_in(
    folder: Path, graph: Path, settings: dict[str, str], precision: Precision = Precision.BF16
) -> tuple[Any, dict[str, Any], dict[str, str]]:
    folder.mkdir()
    options = BuildOptions(library=settings)
    compiled = compile_graph(Graph(graph), folder, precision, options)
    return import_blob(folder / ENGINE_FILE, compiled.options), compiled.options, compiled.rewrites


@pytest.mark.usefixtures("amx")
def test_an_engine_in_bf16_has_it_and_is_as_near_to_fp32(
    network: Path, tmp_path: Path, random_images: Callable
) -> None:
    images = random_images(1, 80, 112, 3)
    reference = shared_core().compile_model(str(network), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)[0]
    ours, options, rewrites = compiled_in(tmp_path / "ours", network, {})
    assert options[attention.OPTION] == "amx"
    assert rewrites["attention"] == "mvde's AMX kernel, 6 of 6"
    theirs, options, rewrites = compiled_in(tmp_path / "theirs", network, {attention.OPTION: "openvino"})
    assert (options[attention.OPTION], rewrites["attention"]) == ("openvino", "OpenVINO's")
    executed = [
        node.get_rt_info()["layerType"].astype(str) for node in ours.get_runtime_model().get_ordered_ops()
    ]  # OpenVINO executes custom operators as "Reference"
    assert (executed.count("Reference"), executed.count("ScaledDotProductAttention")) == (6, 0)
    assert executed.count("Transpose") < 6  # none around attention (keys, results, 1x1 convolutions)
    error = {name: np.abs(engine(images)[0] / reference - 1).mean() for name, engine in (("o", ours), ("t", theirs))}
    assert error["o"] < 1.5 * error["t"]


@pytest.mark.usefixtures("before_avx512")
def test_an_engine_in_fp32_has_it_before_avx512(network: Path, tmp_path: Path, random_images: Callable) -> None:
    if reason := attention.unavailable(attention.AVX2, library_version()):
        pytest.skip(reason)
    images = random_images(1, 80, 112, 3)
    ours, options, rewrites = compiled_in(tmp_path / "ours", network, {}, Precision.FP32)
    assert options[attention.OPTION] == "avx2"
    assert rewrites["attention"] == "mvde's AVX2 kernel, 6 of 6"
    executed = [node.get_rt_info()["layerType"].astype(str) for node in ours.get_runtime_model().get_ordered_ops()]
    assert (executed.count("Reference"), executed.count("ScaledDotProductAttention")) == (6, 0)
    theirs, options, _ = compiled_in(tmp_path / "theirs", network, {attention.OPTION: "openvino"}, Precision.FP32)
    assert options[attention.OPTION] == "openvino"
    # The order of sums differs in six layers of float32.
    np.testing.assert_allclose(ours(images)[0], theirs(images)[0], rtol=1e-5)


@pytest.fixture
def with_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that oneDNN has AVX-512, where the AVX2 kernel was not measured; skip if that kernel cannot run."""
    if reason := attention.unavailable(attention.AVX2, library_version()):
        pytest.skip(reason)
    monkeypatch.setattr(attention, "onednn_features", lambda: ("avx2", "avx512f"))


IN_FP32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}


@pytest.mark.usefixtures("with_avx512")
def test_a_kernel_that_was_not_measured_here_is_timed_against_the_librarys() -> None:
    options, rewrites = attention.applied(shared_core(), model_of(200, 2, 64), IN_FP32, library_version())
    found = attention_choice.trial(shared_core(), attention_choice.Case((1, 200, 2, 64), 0.125), attention.AVX2, "1")
    is_ours = found.ours_s <= 0.9 * found.theirs_s
    assert options == {**IN_FP32, attention.OPTION: "avx2" if is_ours else "openvino"}
    title = "mvde's AVX2 kernel, 1 of 1" if is_ours else "OpenVINO's"
    times = f"mvde's AVX2 kernel {found.ours_s * 1e3:.2f}, OpenVINO's {found.theirs_s * 1e3:.2f}"
    assert rewrites == {"attention": f"{title}; measured in ms: {times}"}
    assert min(found.ours_s, found.theirs_s) > 1e-6
    assert 0 < found.error < 1


@pytest.mark.usefixtures("with_avx512")
@pytest.mark.parametrize(
    ("trial", "chosen", "said"),
    [
        (
            (0.89e-3, 1e-3, 0.5),
            "avx2",
            "mvde's AVX2 kernel, 1 of 1; measured in ms: mvde's AVX2 kernel 0.89",
        ),
        ((0.91e-3, 1e-3, 0.5), "openvino", "OpenVINO's; measured in ms: mvde's AVX2 kernel 0.91, OpenVINO's 1.00"),
        ((0.1e-3, 1e-3, 1.5), "openvino", "OpenVINO's; mvde's AVX2 kernel is off by 1.5 times its rounding"),
        ((0.1e-3, 1e-3, np.nan), "openvino", "OpenVINO's; mvde's AVX2 kernel is off by nan times its rounding"),
        (None, "openvino", "OpenVINO's; mvde's AVX2 kernel failed: no such operator"),
    ],
)
def test_it_is_used_if_it_is_right_and_takes_a_tenth_less_time(
    monkeypatch: pytest.MonkeyPatch, trial: tuple[float, float, float] | None, chosen: str, said: str
) -> None:
    def measured(*_: Any) -> attention_choice.Trial:
        if trial is None:
            raise RuntimeError("no such operator")
        return attention_choice.Trial(*trial)

    monkeypatch.setattr(attention_choice, "trial", measured)
    model = model_of(20, 2, 64)
    options, rewrites = attention.applied(shared_core(), model, IN_FP32, library_version())
    assert options[attention.OPTION] == chosen
    assert rewrites["attention"].startswith(said)
    kept = [node for node in model.get_ordered_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    assert len(kept) == (chosen == "openvino")


def test_a_wrong_result_is_found_when_the_kernel_is_measured(kernel: attention.Kernel) -> None:
    case = attention_choice.Case((2, 50, 3, 16), 0.25)
    exacting = dataclasses.replace(kernel, rounding=kernel.rounding / 1e5)
    assert attention_choice.trial(shared_core(), case, kernel, "1").error < 1
    assert attention_choice.trial(shared_core(), case, exacting, "1").error > 1


@pytest.mark.parametrize("name", ["amx", "avx512"])
def test_which_of_two_kernels_in_bf16_runs_is_written_with_the_graph(name: str, tmp_path: Path) -> None:
    kernel = attention.KERNELS[name]
    if attention.library_path() is None:
        pytest.skip("`make native` builds libmvde_openvino.so where Python's openvino is installed")
    model = model_of(20, 2, 64)
    replace_attention(shared_core(), model, kernel)
    openvino.save_model(model, tmp_path / "graph.xml")
    assert f'kernel="{name}"' in (tmp_path / "graph.xml").read_text(encoding="utf-8")
    read = shared_core().read_model(tmp_path / "graph.xml")
    if reason := attention.unavailable(kernel, library_version()):
        (node,) = [node for node in read.get_ordered_ops() if node.get_type_name() == "Attention"]
        tensors = [openvino.Tensor(openvino.Type.bf16, openvino.Shape([1, 20, 2, 64])) for _ in range(4)]
        with pytest.raises(RuntimeError, match=f"mvde.Attention by {name}: {reason}"):
            node.evaluate(tensors[:1], tensors[1:])


@pytest.mark.usefixtures("before_avx512")
def test_a_graph_without_attention_says_nothing_of_it() -> None:
    x = operators.parameter(openvino.Shape([1, 4]), openvino.Type.f32)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    if not attention.unavailable(attention.AVX2, library_version()):
        assert attention.applied(
            shared_core(), openvino.Model([operators.relu(x)], [x]), options, library_version()
        ) == (
            options,
            {},
        )


@pytest.mark.usefixtures("amx")
def test_threads_do_not_share_the_kernels_room(network: Path, tmp_path: Path, random_images: Callable) -> None:
    engine, _, _ = compiled_in(tmp_path / "engine", network, {"NUM_STREAMS": "2"})
    frames = [random_images(1, 80, 112, 3, seed=seed) for seed in range(16)]

    def depth(frame: np.ndarray) -> np.ndarray:
        return np.array(engine.create_infer_request().infer([frame])[0])

    alone = [depth(frame) for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(depth, frames)), alone)


@pytest.mark.usefixtures("amx")
def test_an_engine_with_it_is_refused_where_it_is_missing(
    network: Path, tmp_path: Path, random_images: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = build_engine(
        load_graph(network), EngineId.parse("openvino:bf16"), random_images(1, 80, 112, 3), root=tmp_path
    )
    load_engine(report.folder / ENGINE_FILE)
    monkeypatch.setattr(attention, "library_path", lambda: None)
    with pytest.raises(IncompatibleEngineError, match=r"mvde's attention.*there is no libmvde_openvino.so.*mvde build"):
        load_engine(report.folder / ENGINE_FILE)


def test_the_refusal_names_the_command_for_that_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "library_path", lambda: None)
    options = {attention.OPTION: attention.AMX.name}
    engine = EngineRecord(
        "openvino:int8", "openvino", Precision.INT8, "int8+bf16", "CPU", "2026.4.1", (), options, "0" * 64
    )
    with pytest.raises(IncompatibleEngineError, match=r"mvde build --engine openvino:int8$"):
        attention.require(shared_core(), engine, "2026.4.1", tmp_path)


def test_without_it_an_engine_has_the_librarys_and_says_why(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not arithmetic(Precision.BF16).works:
        pytest.skip("this CPU has no bf16")
    monkeypatch.setattr(native, "library_folders", lambda: [tmp_path])
    _, options, rewrites = compiled_in(tmp_path / "without", network, {})
    assert options[attention.OPTION] == "openvino"
    assert rewrites["attention"].startswith("OpenVINO's; there is no libmvde_openvino.so beside libmvde.so")
    with pytest.raises(BackendError, match="was requested but cannot run here: there is no libmvde_openvino"):
        compiled_in(tmp_path / "asked", network, {attention.OPTION: "amx"})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"INFERENCE_PRECISION_HINT": "f32", attention.OPTION: "amx"}, "computes in bf16, and this engine does not"),
        ({attention.OPTION: "avx2"}, "computes in fp32, and this engine does not"),
        ({attention.OPTION: "fast"}, "MVDE_ATTENTION is 'fast': expected amx, avx512, avx2 or openvino"),
    ],
)
def test_what_cannot_be_had_is_refused_before_compiling(settings: dict[str, str], reason: str) -> None:
    options = {"INFERENCE_PRECISION_HINT": "bf16", **settings}
    with pytest.raises(BackendError, match=reason):
        attention.applied(shared_core(), model_of(20, 2, 64), options, library_version())


def test_another_version_of_openvino_is_refused() -> None:
    if attention.library_path() is None:
        pytest.skip("`make native` builds libmvde_openvino.so where Python's openvino is installed")
    said = attention.unavailable(attention.AVX2, "2019.1.0")
    assert "but 2019.1.0 is installed: pip install openvino==" in said
    assert "`make native` in mvde's source tree builds it again" in said


def test_it_is_found_in_the_source_tree_of_an_editable_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an install spans two folders: libmvde is found in the first, and `make native` builds into the second."""
    installed, tree = tmp_path / "installed", tmp_path / "tree"
    for folder in (installed / "lib", tree / "lib"):
        folder.mkdir(parents=True)
    (installed / "lib" / "libmvde.so").touch()
    (tree / "lib" / "libmvde_openvino.so").touch()
    monkeypatch.delenv("MVDE_LIBRARY", raising=False)
    monkeypatch.setattr(mvde, "__path__", [str(installed), str(tree)])
    assert native.library_path() == installed / "lib" / "libmvde.so"
    assert attention.library_path() == tree / "lib" / "libmvde_openvino.so"


def test_a_file_that_is_no_library_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libmvde_openvino.so").write_bytes(b"not a library")
    monkeypatch.setattr(native, "library_folders", lambda: [tmp_path])
    assert "cannot be used: " in attention.unavailable(attention.AVX2, "2026.4.1")
