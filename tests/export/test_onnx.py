"""The exported graph: structure, parity with PyTorch in several runtimes, and failed exports."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import resource
import site
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import mvde
from mvde.artifact import load_graph, read_artifact
from mvde.contract import DepthKind, stretched
from mvde.engines.openvino.library import shared_core
from mvde.engines.target_memory import estimate_memory
from mvde.errors import ImageError, OutputError, ParityError, ResolutionError, UsageError
from mvde.files import sha256_file
from mvde.precision import Precision
from tests.export.conftest import NUM_LAYERS, RESOLUTION

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from mvde.export import verify  # noqa: E402
from mvde.export.graph import save  # noqa: E402
from mvde.export.onnx import PARITY_TOLERANCE, export_onnx  # noqa: E402
from mvde.export.torch_graph import traced  # noqa: E402

if TYPE_CHECKING:
    from mvde.model import DepthModel

Exported = tuple[Path, int]


def random_image(batch: int = 1, resolution: tuple[int, int] = RESOLUTION) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (batch, *resolution, 3), dtype=np.uint8)


def torch_depth(model: DepthModel, image: np.ndarray) -> np.ndarray:
    return model.predict_depth(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()


def run_onnxruntime(path: Path, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def assert_same_depth(actual: np.ndarray, expected: np.ndarray) -> None:
    assert expected.max() / expected.min() > 2, "a constant depth would hide every mistake"
    np.testing.assert_allclose(actual, expected, rtol=PARITY_TOLERANCE)


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder by name, hidden files included."""
    return {path.name: sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def ancestors(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    producers = {name: other for other in graph.node for name in other.output}
    found, names = [], list(node.input)
    while names:
        producer = producers.get(names.pop())
        if producer is not None:
            found.append(producer)
            names += producer.input
    return found


def test_graph_takes_camera_bytes_and_gives_depth(exported: Exported) -> None:
    model = onnx.load(str(exported[0]))
    (image,), (depth,) = model.graph.input, model.graph.output
    described = [
        (value.name, value.type.tensor_type.elem_type, [d.dim_value for d in value.type.tensor_type.shape.dim])
        for value in (image, depth)
    ]
    assert described == [
        ("image", onnx.TensorProto.UINT8, [1, *RESOLUTION, 3]),
        ("depth", onnx.TensorProto.FLOAT, [1, *RESOLUTION]),
    ]
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == exported[1]


def test_bytes_are_cast_then_transposed_then_convolved(exported: Exported) -> None:
    graph = onnx.load(str(exported[0])).graph
    name, chain = "image", []
    while not chain or chain[-1] != "Conv":
        (reader,) = (node for node in graph.node if name in node.input)
        chain.append(reader.op_type)
        name = reader.output[0]
    assert chain == ["Cast", "Transpose", "Conv"]


def test_position_embeddings_are_constants(exported: Exported) -> None:
    graph = onnx.load(str(exported[0])).graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    assert "Resize" not in {node.op_type for node in ancestors(graph, first)}
    tokens = next(node for node in graph.node if node.op_type == "Add")
    assert "Resize" not in {node.op_type for node in ancestors(graph, tokens)}
    modes = [a.s for node in graph.node if node.op_type == "Resize" for a in node.attribute if a.name == "mode"]
    assert modes
    assert b"cubic" not in modes


def test_attention_is_the_standard_operator_from_opset_23(exported: Exported) -> None:
    path, opset = exported
    ops = Counter(node.op_type for node in onnx.load(str(path)).graph.node)
    assert ops["Attention"] == (NUM_LAYERS if opset >= 23 else 0)
    assert ops["Softmax"] == (0 if opset >= 23 else NUM_LAYERS)


def test_layers_past_the_last_tap_are_not_exported(exported: Exported) -> None:
    names = [tensor.name for tensor in onnx.load(str(exported[0])).graph.initializer]
    assert any(f"layers.{NUM_LAYERS - 1}." in name for name in names)
    assert not any(f"layers.{NUM_LAYERS}." in name for name in names)


def test_file_contains_no_paths_of_the_machine(exported: Exported) -> None:
    content = exported[0].read_bytes()
    for path in (*site.getsitepackages(), str(Path.cwd()), str(Path.home())):
        assert path.encode() not in content
    assert b".py" not in content


def test_metadata_names_patch_and_grid(exported: Exported) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(str(exported[0])).metadata_props}
    assert metadata["mvde.stats_patch"] == "16"
    assert metadata["mvde.grid"] == "3x5"
    assert metadata["mvde.valid_range"] == "0.1..10"


def test_onnxruntime_agrees_with_pytorch(exported: Exported, tiny_model: DepthModel) -> None:
    image = random_image()
    assert_same_depth(run_onnxruntime(exported[0], image), torch_depth(tiny_model, image))


def test_openvino_agrees_with_pytorch(exported: Exported, tiny_model: DepthModel) -> None:
    pytest.importorskip("openvino")
    image = random_image()
    compiled = shared_core().compile_model(str(exported[0]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_same_depth(compiled([image])[0], torch_depth(tiny_model, image))


PARSE_WITH_TENSORRT_RTX = """
import sys, tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
network = trt.Builder(logger).create_network(0)
parser = trt.OnnxParser(network, logger)
if not parser.parse(open(sys.argv[1], "rb").read()):
    sys.exit("; ".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
print(network.get_input(0).dtype, tuple(network.get_input(0).shape), tuple(network.get_output(0).shape))
"""


def test_tensorrt_rtx_parses_the_graph(exported: Exported) -> None:
    pytest.importorskip("tensorrt_rtx")
    # In a child process: loaded here without a GPU, the library made a later test crash.
    command = [sys.executable, "-c", PARSE_WITH_TENSORRT_RTX, str(exported[0])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[0] == "DataType.UINT8 (1, 48, 80, 3) (1, 48, 80)"


def test_manifest_describes_the_file(exported: Exported, tiny_model: DepthModel) -> None:
    manifest = load_graph(exported[0]).manifest
    assert manifest.file.sha256 == sha256_file(exported[0])
    assert (manifest.name, manifest.kind, manifest.opset) == ("tiny", "onnx", exported[1])
    assert manifest.preprocess == stretched((0.4, 0.5, 0.6), (0.2, 0.3, 0.5))
    assert (manifest.grid, manifest.stats_patch) == ((3, 5), 16)
    assert manifest.valid_range == (0.1, 10.0)
    assert manifest.source.config == tiny_model.config.to_dict()
    assert manifest.tools["torch"] == version("torch")  # torch.__version__ of PyPI's CUDA wheels ends with +cu128
    assert manifest.tools["mvde"] == mvde.__version__


def test_manifest_carries_the_measured_parity(exported: Exported) -> None:
    parity = load_graph(exported[0]).manifest.parity
    assert 0 < parity.measured.max_rel <= PARITY_TOLERANCE
    assert 0 < parity.measured.mean_rel <= parity.measured.max_rel
    assert set(parity.measured.stats) == {"mean", "var", "grad"}
    assert parity.measured.num_images == len(parity.photos) == 6
    assert "coffee.jpg" in parity.photos


def test_relative_model_is_exported_as_relative_with_a_batch(
    make_tiny_model: Callable[..., DepthModel], tmp_path: Path
) -> None:
    model = make_tiny_model(scale_invariant=True)
    model.train()
    (path,) = export_onnx(model, [(32, 48)], tmp_path, "other", batch=2)
    assert model.training, "export leaves the model in the mode that it found"
    assert path.name == "other-32x48-b2.onnx"
    manifest = load_graph(path).manifest
    assert (manifest.depth_kind, manifest.unit) == (DepthKind.SCALE_INVARIANT, "1")
    image = random_image(2, (32, 48))
    assert_same_depth(run_onnxruntime(path, image), torch_depth(model, image))


@pytest.mark.usefixtures("without_tracing")
def test_large_weights_go_into_a_companion_that_is_hashed(
    tiny_model: DepthModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "MAX_INLINE_BYTES", 10_000)
    (path,) = export_onnx(tiny_model, [RESOLUTION], tmp_path)
    (companion,) = load_graph(path).manifest.companions
    assert re.fullmatch(r"tiny-48x80\.[0-9a-f]{8}\.data", companion.name)
    assert sorted(files(tmp_path)) == sorted([companion.name, "tiny-48x80.json", "tiny-48x80.onnx"])
    image = random_image()
    assert_same_depth(run_onnxruntime(path, image), torch_depth(tiny_model, image))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"resolutions": [(64, 64), (48, 90)]}, ResolutionError, "48x90.*patch size 16.*48x80 or 48x96"),
        ({"opset": 17}, UsageError, "opset 17.*18"),
        ({"batch": 0}, UsageError, "batch"),
        ({"name": "../evil"}, UsageError, "name"),
        ({"name": ""}, UsageError, "name"),
        ({"photos": []}, UsageError, "photograph"),
        ({"photos": [Path("no-such.jpg")]}, ImageError, "no-such.jpg"),
    ],
)
def test_bad_argument_is_one_error_before_anything_is_written(
    tiny_model: DepthModel, tmp_path: Path, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_onnx(tiny_model, **{"resolutions": [(64, 64)], "out_dir": tmp_path / "export", **arguments})
    assert not (tmp_path / "export").exists()


@pytest.fixture
def older(tiny_model: DepthModel, tmp_path: Path, without_tracing: None) -> dict[str, str]:
    """Write an earlier export to the output folder; returns the hashes of its files."""
    export_onnx(tiny_model, [RESOLUTION], tmp_path)
    return files(tmp_path)


def test_graph_that_disagrees_with_pytorch_is_not_written(
    tiny_model: DepthModel, tmp_path: Path, older: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = verify.onnxruntime_depth
    monkeypatch.setattr(verify, "onnxruntime_depth", lambda *given: [depth * 1.001 for depth in right(*given)])
    with pytest.raises(ParityError, match=r"tiny-48x80 differs.*at most 1\.0e-04.*nothing was written"):
        export_onnx(tiny_model, [RESOLUTION], tmp_path)
    assert files(tmp_path) == older


@pytest.mark.parametrize("step", ["load_photos", "torch_depth", "onnxruntime_depth"])
def test_interrupted_export_leaves_the_old_artefact(
    tiny_model: DepthModel, tmp_path: Path, older: dict[str, str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(tiny_model, [RESOLUTION], tmp_path)
    assert files(tmp_path) == older
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@contextlib.contextmanager
def limited_file_size(num_bytes: int) -> Iterator[None]:
    """Make writes beyond ``num_bytes`` of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_that_fills_while_writing_leaves_the_old_artefact(
    tiny_model: DepthModel, tmp_path: Path, older: dict[str, str]
) -> None:
    with limited_file_size(100_000), pytest.raises(OutputError, match=os.strerror(errno.EFBIG)):
        export_onnx(tiny_model, [RESOLUTION], tmp_path)
    assert files(tmp_path) == older
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("without_tracing")
def test_model_is_let_go_before_onnxruntime_runs(
    make_tiny_model: Callable[..., DepthModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import weakref

    loaded: list[weakref.ref[DepthModel]] = []
    alive: list[bool] = []

    def load() -> DepthModel:
        model = make_tiny_model()
        loaded.append(weakref.ref(model))
        return model

    right = verify.onnxruntime_depth

    def observe(*given: object) -> list[np.ndarray]:
        gc.collect()
        alive.append(loaded[-1]() is not None)
        return right(*given)

    monkeypatch.setattr(verify, "onnxruntime_depth", observe)
    export_onnx(load, [RESOLUTION], tmp_path)
    assert alive == [False]


def test_traced_graph_keeps_no_hold_on_the_model(make_tiny_model: Callable[..., DepthModel]) -> None:
    import gc
    import weakref

    model = make_tiny_model()
    memory = []  # each parameter gets its own array, freed with the last tensor that uses it
    for parameter in model.parameters():
        array = parameter.detach().numpy().copy()
        parameter.data = torch.from_numpy(array)
        memory.append(weakref.ref(array))
    del array, parameter
    with traced(model, (32, 32)):
        pass
    assert all(parameter.isfinite().all() and parameter.numel() for parameter in model.parameters())
    assert all(array() is not None for array in memory)
    del model
    gc.collect()
    assert [array().shape for array in memory if array() is not None] == []


@pytest.mark.usefixtures("without_tracing")
def test_an_export_killed_anywhere_leaves_the_old_or_the_new_graph(
    tiny_model: DepthModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_old: Callable[[Path], object],
    kill_when_publishing: Callable[..., list[int]],
) -> None:
    monkeypatch.setattr(save, "MAX_INLINE_BYTES", 10_000)  # with an external data file
    (path,) = export_onnx(tiny_model, [RESOLUTION], tmp_path)
    make_old(path)
    found: list[str] = []
    kill_when_publishing(lambda folder: found.append(load_graph(path).manifest.created))
    export_onnx(tiny_model, [RESOLUTION], tmp_path)
    assert found[0] == "long ago"
    assert found[-1] != "long ago"
    assert len(files(tmp_path)) == 3


def live_floats(path: Path) -> int:
    """Largest number of float values alive at once, when the nodes run in the file's order."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    is_float = onnx.TensorProto.FLOAT
    size = {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == is_float
    }
    last_use = {name: index for index, node in enumerate(graph.node) for name in node.input}
    alive: dict[str, int] = {}
    largest = 0
    for index, node in enumerate(graph.node):
        alive.update({name: size.get(name, 0) for name in node.output})
        largest = max(largest, sum(alive.values()))
        alive = {name: count for name, count in alive.items() if last_use.get(name, index + 1) > index}
    return largest


def test_the_estimate_covers_what_is_alive_at_once(exported: tuple[Path, int]) -> None:
    path, _ = exported
    manifest = read_artifact(path).manifest
    counted = 4 * live_floats(path)
    estimated = estimate_memory(manifest, Precision.FP32).activation_bytes
    assert 0.4 * estimated <= counted <= estimated
