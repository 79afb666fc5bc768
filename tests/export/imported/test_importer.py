"""Import of third-party files: pixels, maps, opsets, precisions and external data, against arithmetic in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mvde.artifact import load_graph
from mvde.contract import DepthKind, FocalConvention, OutputRole
from mvde.errors import ParityError, UsageError
from mvde.export.imported import importer
from mvde.export.imported.contract import ImportContract, NamedOutput
from mvde.export.imported.importer import ImportRequest, import_onnx
from mvde.files import sha256_file
from tests.export.imported.conftest import RESOLUTION, network

ImportFile = Callable[..., Any]
ContractWith = Callable[..., ImportContract]


@pytest.fixture
def import_file(tmp_path: Path, contract: ImportContract) -> ImportFile:
    """Import of one file at one resolution; options are fields of the request."""

    def run(path: Path, resolution: tuple[int, int] | None = RESOLUTION, **options: Any) -> Any:
        request = ImportRequest(path, **{"contract": contract, "name": "theirs", **options})
        (imported,) = import_onnx(request, [] if resolution is None else [resolution], tmp_path / "export")
        return imported

    return run


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, *RESOLUTION, 3), dtype=np.uint8)


def run_graph(path: Path, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"image": images}))


@pytest.mark.parametrize("opset", [11, 13, 16, 18, 20, 23])
def test_every_opset_gives_the_files_depth_from_bytes(
    write_file: Callable[..., Path],
    import_file: ImportFile,
    images: np.ndarray,
    expected_depth: Callable[[np.ndarray], np.ndarray],
    opset: int,
) -> None:
    imported = import_file(write_file(opset))
    (depth,) = run_graph(imported.path, images)
    np.testing.assert_allclose(depth, expected_depth(images), rtol=1e-5)
    assert depth.dtype == np.float32
    model = onnx.load(imported.path)
    assert model.opset_import[0].version == imported.manifest.opset == 23
    assert {node.op_type for node in model.graph.node} <= {"Cast", "Transpose", "Conv", "Relu", "Add", "Reshape"}
    assert model.graph.node[0].op_type == "Cast"


def test_the_manifest_states_the_source_and_the_parity(
    write_file: Callable[..., Path], import_file: ImportFile, tmp_path: Path
) -> None:
    path = write_file()
    manifest = load_graph(import_file(path).path).manifest
    assert (manifest.source.kind, manifest.source.name) == ("onnx", "theirs.onnx")
    assert manifest.source.sha256 == sha256_file(path)
    assert manifest.source.config["opset"] == 17
    assert str(tmp_path) not in manifest.to_json()
    assert manifest.parity.reference == "onnx:fp32"
    assert manifest.parity.measured.max_rel < 1e-6
    assert len(manifest.parity.photos) == 6
    assert (manifest.depth_kind, manifest.stats_patch, manifest.grid) == (DepthKind.METRIC, 16, (2, 3))
    assert manifest.valid_range[0] == 0
    assert 1 < manifest.valid_range[1] < 20


def test_a_batch_and_bgr_bytes_from_0_to_255_are_taken(
    write_file: Callable[..., Path], import_file: ImportFile, contract_with: ContractWith, images: np.ndarray
) -> None:
    mean, std = (10.0, 20.0, 30.0), (50.0, 60.0, 70.0)
    contract = contract_with({"mean": mean, "std": std, "pixel_range": 255.0, "colour": "BGR"}, map_scale=0.5)
    pair = np.concatenate([images, images[:, ::-1]])
    (depth,) = run_graph(import_file(write_file(), contract=contract, batch=2).path, pair)
    weights = np.array([0.5, -0.25, 1.0])
    expected = 0.5 * (1 + np.maximum(((pair[..., ::-1].astype(np.float64) - mean) / std) @ weights, 0))
    np.testing.assert_allclose(depth, expected, rtol=1e-5)


def test_interleaved_pixels_are_taken(
    tmp_path: Path, import_file: ImportFile, images: np.ndarray, expected_depth: Callable[[np.ndarray], np.ndarray]
) -> None:
    model = network(sides=(1, *RESOLUTION, 3))
    model.graph.node.insert(0, helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
    for node in model.graph.node[1:]:
        node.input[:] = ["planes" if name == "image" else name for name in node.input]
    onnx.save(model, str(tmp_path / "nhwc.onnx"))
    imported = import_file(tmp_path / "nhwc.onnx", None)
    assert imported.manifest.source.config["layout"] == "NHWC"
    np.testing.assert_allclose(run_graph(imported.path, images)[0], expected_depth(images), rtol=1e-5)


def test_open_axes_are_told_by_the_first_convolution(
    tmp_path: Path, import_file: ImportFile, images: np.ndarray, expected_depth: Callable[[np.ndarray], np.ndarray]
) -> None:
    onnx.save(network(sides=("batch", "num_channels", "height", "width")), str(tmp_path / "open.onnx"))
    imported = import_file(tmp_path / "open.onnx")
    assert imported.manifest.source.config["layout"] == "NCHW"
    np.testing.assert_allclose(run_graph(imported.path, images)[0], expected_depth(images), rtol=1e-5)


def test_half_precision_weights_become_float32(
    write_file: Callable[..., Path],
    import_file: ImportFile,
    images: np.ndarray,
    expected_depth: Callable[[np.ndarray], np.ndarray],
) -> None:
    imported = import_file(write_file(edit=to_half))
    (depth,) = run_graph(imported.path, images)
    np.testing.assert_allclose(depth, expected_depth(images), rtol=1e-5)  # these weights are exact in fp16
    assert imported.manifest.parity.reference == "onnx:fp16"
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in onnx.load(imported.path).graph.initializer}


def to_half(model: onnx.ModelProto) -> None:
    """Compute in fp16 between float32 pixels and a float32 map, with the casts at the end as converters leave them."""
    graph = model.graph
    for tensor in [each for each in graph.initializer if each.data_type == TensorProto.FLOAT]:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    graph.node[0].input[0] = "narrow"
    graph.node[-1].output[0] = "half"
    graph.node.append(helper.make_node("Cast", ["half"], ["depth"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Cast", ["image"], ["narrow"], to=TensorProto.FLOAT16))


def test_external_data_is_read_and_recorded(
    write_file: Callable[..., Path],
    import_file: ImportFile,
    tmp_path: Path,
    images: np.ndarray,
    expected_depth: Callable[[np.ndarray], np.ndarray],
) -> None:
    path = write_file(save_as_external_data=True, location="weights.bin", size_threshold=0)
    imported = import_file(path)
    assert imported.manifest.source.config["external_data"] == {"weights.bin": sha256_file(tmp_path / "weights.bin")}
    assert imported.manifest.companions == ()
    np.testing.assert_allclose(run_graph(imported.path, images)[0], expected_depth(images), rtol=1e-5)


def compute_the_offset_from_a_table(model: onnx.ModelProto) -> None:
    """Offset of 1 as the largest value of 90 KB of weights, as position embeddings are resampled ones."""
    (one,) = (tensor for tensor in model.graph.initializer if tensor.name == "one")
    model.graph.initializer.remove(one)
    model.graph.initializer.append(
        numpy_helper.from_array(np.linspace(-1, 1, 22500, dtype=np.float32).reshape(150, 150), "table")
    )
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["table"], ["one"], keepdims=0))


def test_constants_are_computed_from_weights_in_external_data(
    write_file: Callable[..., Path],
    import_file: ImportFile,
    images: np.ndarray,
    expected_depth: Callable[[np.ndarray], np.ndarray],
) -> None:
    path = write_file(edit=compute_the_offset_from_a_table, save_as_external_data=True, location="weights.bin")
    imported = import_file(path)
    assert "ReduceMax" not in {node.op_type for node in onnx.load(imported.path).graph.node}
    np.testing.assert_allclose(run_graph(imported.path, images)[0], expected_depth(images), rtol=1e-5)


def add_sky(model: onnx.ModelProto) -> None:
    """Second map of the input's size."""
    model.graph.node.append(helper.make_node("Sigmoid", ["sum"], ["heaven"], name="sky"))
    model.graph.output.append(
        helper.make_tensor_value_info("heaven", TensorProto.FLOAT, ["batch", 1, "height", "width"])
    )


def test_outputs_keep_their_roles_and_depth_comes_first(
    write_file: Callable[..., Path], import_file: ImportFile, contract_with: ContractWith, images: np.ndarray
) -> None:
    outputs = (NamedOutput("heaven", OutputRole.SKY, 0.3), NamedOutput("depth", OutputRole.DEPTH))
    imported = import_file(write_file(edit=add_sky), contract=contract_with(outputs=outputs))
    roles = [(output.name, output.role, output.threshold) for output in imported.manifest.outputs]
    assert roles == [("depth", OutputRole.DEPTH, None), ("sky", OutputRole.SKY, 0.3)]
    assert [output.name for output in onnx.load(imported.path).graph.output] == ["depth", "sky"]
    depth, sky = run_graph(imported.path, images)
    assert depth.shape == sky.shape == (1, *RESOLUTION)
    above = depth > 1
    np.testing.assert_allclose(sky[above], 1 / (1 + np.exp(1 - depth[above])), rtol=1e-4)


def test_an_output_without_a_role_is_dropped_and_named(
    write_file: Callable[..., Path], import_file: ImportFile, contract_with: ContractWith
) -> None:
    imported = import_file(write_file(edit=add_sky), contract=contract_with(depth_names=("depth",)))
    assert imported.dropped == ("heaven",)
    assert [output.name for output in onnx.load(imported.path).graph.output] == ["depth"]


def test_a_branch_of_open_size_is_dropped_with_its_output(
    write_file: Callable[..., Path], import_file: ImportFile
) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("NonZero", ["sum"], ["boxes"], name="boxes"))
        model.graph.output.append(helper.make_tensor_value_info("boxes", TensorProto.INT64, [4, "found"]))

    imported = import_file(write_file(edit=edit))
    assert imported.dropped == ("boxes",)
    assert "NonZero" not in {node.op_type for node in onnx.load(imported.path).graph.node}


def test_a_canonical_camera_is_stated(
    write_file: Callable[..., Path], import_file: ImportFile, contract_with: ContractWith
) -> None:
    focal = {"canonical_focal": 300.0, "focal_convention": FocalConvention.PIXELS}
    contract = contract_with(kind=DepthKind.METRIC_FOCAL, valid_range=(0.0, 80.0), **focal)
    manifest = import_file(write_file(), contract=contract).manifest
    assert (manifest.canonical_focal, manifest.focal_convention) == (300.0, FocalConvention.PIXELS)
    assert manifest.valid_range == (0.0, 80.0)


def test_an_inverse_map_with_zeros_is_kept_as_it_is(
    write_file: Callable[..., Path], import_file: ImportFile, contract_with: ContractWith, images: np.ndarray
) -> None:
    def without_offset(model: onnx.ModelProto) -> None:
        model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.float32(0), "one"))

    imported = import_file(write_file(edit=without_offset), contract=contract_with(kind=DepthKind.INVERSE_RELATIVE))
    (depth,) = run_graph(imported.path, images)
    assert (depth == 0).any()  # as a ReLU head gives in the sky
    assert imported.manifest.unit == "1/u"
    measured = imported.manifest.parity.measured
    assert measured.max_rel < 1e-6
    assert measured.reference_range is not None, "an inverse map is compared relative to its range"


@pytest.mark.parametrize("edit", ["mean", "axis", "colour"])
def test_a_wrong_front_is_not_written(
    write_file: Callable[..., Path],
    import_file: ImportFile,
    contract_with: ContractWith,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    edit: str,
) -> None:
    front = importer.take_camera_bytes
    wrong = {
        "mean": {"mean": (0.4, 0.5, 0.61)},
        "axis": {"std": (0.25, 0.2, 0.5)},
        "colour": {"colour": "BGR"},
    }
    other = contract_with(wrong[edit]).preprocess
    monkeypatch.setattr(importer, "take_camera_bytes", lambda model, pixels, _: front(model, pixels, other))
    with pytest.raises(ParityError, match="nothing was written"):
        import_file(write_file())
    assert list((tmp_path / "export").iterdir()) == []


def test_a_size_that_the_file_fixes_is_the_default_and_another_is_refused(
    tmp_path: Path, import_file: ImportFile
) -> None:
    onnx.save(network(sides=(1, 3, *RESOLUTION)), str(tmp_path / "fixed.onnx"))
    assert import_file(tmp_path / "fixed.onnx", None).manifest.resolution == RESOLUTION
    with pytest.raises(UsageError, match=r"fixed to \[1, 3, 32, 48\].*--res 32x48 and --batch 1"):
        import_file(tmp_path / "fixed.onnx", (64, 48))
    with pytest.raises(UsageError, match="--batch 1"):
        import_file(tmp_path / "fixed.onnx", batch=2)


def test_a_dynamic_file_needs_a_size(write_file: Callable[..., Path], import_file: ImportFile) -> None:
    with pytest.raises(UsageError, match="--res"):
        import_file(write_file(), None)
