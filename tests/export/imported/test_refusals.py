"""Files that cannot be imported: each is refused with what is wrong in it, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mvde.contract import OutputRole
from mvde.errors import ArtifactError, MvdeError, UsageError
from mvde.export.imported import source
from mvde.export.imported.contract import ImportContract, NamedOutput
from mvde.export.imported.importer import ImportRequest, import_onnx
from tests.export.imported.conftest import RESOLUTION, network

WriteFile = Callable[..., Path]
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, contract: ImportContract) -> Refused:
    """Message of the error that an import ends with; nothing is written."""

    def run(path: Path, error: type[MvdeError] = ArtifactError, resolution: Any = RESOLUTION, **options: Any) -> str:
        request = ImportRequest(path, **{"contract": contract, "name": "theirs", **options})
        with pytest.raises(error) as caught:
            import_onnx(request, [resolution], tmp_path / "export")
        assert not any((tmp_path / "export").glob("*"))
        return str(caught.value)

    return run


@pytest.mark.parametrize("keep", [0, 1, 100, 400])
def test_a_truncated_file(write_file: WriteFile, refused: Refused, keep: int) -> None:
    path = write_file()
    path.write_bytes(path.read_bytes()[:keep])
    assert "truncated" in refused(path)


def test_a_file_cut_anywhere(write_file: WriteFile) -> None:
    path = write_file()
    content = path.read_bytes()
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError):
            source.read_source(path)


def test_a_value_that_no_node_makes(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[2].input[0] = "elsewhere"

    assert "elsewhere" in refused(write_file(edit=edit))


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\x89PNG\r\n", b"hello\n" * 100])
def test_a_file_of_another_kind(tmp_path: Path, refused: Refused, content: bytes) -> None:
    (tmp_path / "other.onnx").write_bytes(content)
    assert "not an ONNX file" in refused(tmp_path / "other.onnx")


def test_a_missing_file_and_a_folder(tmp_path: Path, refused: Refused) -> None:
    assert "No such file" in refused(tmp_path / "none.onnx")
    assert "not a regular file" in refused(tmp_path)


def test_more_than_two_gigabytes_in_one_file(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(1 << 31)  # sparse
    assert "save_as_external_data=True" in refused(path)


def test_weights_beyond_memory(write_file: WriteFile, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "available_bytes", lambda: 100)
    assert "of memory" in refused(write_file(), UsageError)


def test_a_size_beyond_memory(write_file: WriteFile, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "available_bytes", lambda: 1 << 30)
    assert "smaller --res" in refused(write_file(), UsageError, (16384, 16384))


@pytest.mark.parametrize(("opset", "word"), [(24, "too new"), (10, "too old")])
def test_an_opset_out_of_range(write_file: WriteFile, refused: Refused, opset: int, word: str) -> None:
    message = refused(write_file(opset))
    assert f"opset {opset}" in message
    assert word in message


def test_a_schema_of_a_later_onnx(write_file: WriteFile, refused: Refused) -> None:
    assert "IR version 99" in refused(write_file(edit=lambda model: setattr(model, "ir_version", 99)))


def test_nan_among_the_weights(write_file: WriteFile, refused: Refused) -> None:
    bad = numpy_helper.from_array(np.full((1, 3, 1, 1), np.nan, np.float32), "weight")
    assert "'weight'" in refused(write_file(edit=lambda model: model.graph.initializer[0].CopyFrom(bad)))


def test_a_tensor_of_another_size_than_it_states(write_file: WriteFile, refused: Refused) -> None:
    message = refused(write_file(edit=lambda model: model.graph.initializer[0].dims.append(1 << 40)))
    assert "'weight'" in message
    assert "damaged" in message


def external(path: Path, **changes: str) -> None:
    """Change what the first external tensor states."""
    model = onnx.load(path, load_external_data=False)
    entries = {entry.key: entry for entry in model.graph.initializer[0].external_data}
    for key, value in changes.items():
        entries[key].value = value
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def external_file(write_file: WriteFile) -> Path:
    return write_file(save_as_external_data=True, location="weights.bin", size_threshold=0)


@pytest.mark.parametrize("location", ["/etc/hostname", "../weights.bin", "sub/../../weights.bin"])
def test_external_data_outside_the_folder(external_file: Path, refused: Refused, location: str) -> None:
    external(external_file, location=location)
    message = refused(external_file)
    assert location in message
    assert "folder" in message


def test_external_data_by_link(external_file: Path, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").rename(tmp_path / "elsewhere")
    (tmp_path / "weights.bin").symlink_to(tmp_path / "elsewhere")
    assert "link" in refused(external_file)


def test_external_data_in_a_linked_folder(external_file: Path, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "sub").symlink_to("/etc")
    external(external_file, location="sub/hostname")
    assert "'sub/hostname'" in refused(external_file)


@pytest.mark.parametrize("changes", [{"length": "4"}, {"offset": "1000000"}, {"offset": "-1"}, {"length": "x"}])
def test_external_data_of_another_length(external_file: Path, refused: Refused, changes: dict[str, str]) -> None:
    external(external_file, **changes)
    assert "'weight'" in refused(external_file)


def test_external_data_that_is_short_or_missing(external_file: Path, refused: Refused, tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:4])
    assert "truncated" in refused(external_file)
    weights.unlink()
    assert "missing" in refused(external_file)


def test_half_precision_pixels(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    message = refused(write_file(edit=edit))
    assert "'image'" in message
    assert "float16" in message


def test_a_second_input_with_the_node_that_reads_it(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [1]))
        model.graph.node[2].input[1] = "state"

    message = refused(write_file(edit=edit))
    assert "'state'" in message
    assert "'offset'" in message


def test_a_custom_operator(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[1].domain = "com.example"
        model.opset_import.append(helper.make_opsetid("com.example", 1))

    message = refused(write_file(edit=edit))
    assert "'relu'" in message
    assert "com.example.Relu" in message


def insert_before_map(model: onnx.ModelProto, op_type: str, **attributes: Any) -> None:
    """Put a node of one input in front of the last node."""
    model.graph.node.insert(5, helper.make_node(op_type, ["metres"], ["other"], name="theirs", **attributes))
    model.graph.node[6].input[0] = "other"


def test_a_random_node(write_file: WriteFile, refused: Refused) -> None:
    message = refused(write_file(edit=lambda model: insert_before_map(model, "RandomNormalLike")))
    assert "'theirs'" in message
    assert "RandomNormalLike" in message


def test_a_quantised_node(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        names = ["quantized", "scale", "zero"]
        model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["metres"], names, name="theirs"))

    message = refused(write_file(edit=edit))
    assert "'theirs'" in message
    assert "mvde lower" in message


def test_a_size_that_depends_on_the_picture(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        node = helper.make_node("NonZero", ["positive"], ["where"], name="theirs")
        more = [
            helper.make_node("Cast", ["where"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
            helper.make_node("Add", ["metres", "mean"], ["other"]),
        ]
        model.graph.node[5].input[0] = "other"
        for number, each in enumerate([node, *more]):
            model.graph.node.insert(5 + number, each)

    message = refused(write_file(edit=edit))
    assert "'theirs'" in message
    assert "NonZero" in message


def test_a_map_whose_size_depends_on_the_picture(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[5].CopyFrom(helper.make_node("NonZero", ["metres"], ["where"], name="theirs"))
        model.graph.node.append(helper.make_node("Cast", ["where"], ["depth"], to=TensorProto.FLOAT))

    message = refused(write_file(edit=edit))
    assert "'theirs'" in message
    assert "depends on the picture" in message


def test_no_usable_output(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        insert_before_map(model, "ReduceMean", axes=[3], keepdims=1)
        model.graph.node[-1].CopyFrom(helper.make_node("Identity", ["other"], ["depth"]))
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        for side in (1, 1, 32, 1):
            model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = side

    message = refused(write_file(edit=edit))
    assert "no usable output" in message
    assert "'depth'" in message


def test_two_candidates_are_both_named(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.output.append(helper.make_tensor_value_info("positive", TensorProto.FLOAT, None))

    message = refused(write_file(edit=edit), UsageError)
    assert "'depth' and 'positive'" in message
    assert "--output" in message


def test_names_that_the_file_lacks(write_file: WriteFile, refused: Refused, contract: ImportContract) -> None:
    path = write_file()
    assert "'picture'" in refused(path, UsageError, input_name="picture")
    other = dataclasses.replace(contract, outputs=(NamedOutput("heaven", OutputRole.SKY, 0.5),))
    assert "'heaven'" in refused(path, UsageError, contract=other)


def test_a_layout_that_the_shape_leaves_open(tmp_path: Path, refused: Refused) -> None:
    model = network(sides=("a", "b", "c", "d"))
    model.graph.node.insert(0, helper.make_node("ReduceMean", ["image"], ["flat"], axes=[1], keepdims=1))
    model.graph.node[1].CopyFrom(helper.make_node("Mul", ["flat", "one"], ["sum"]))
    onnx.save(model, str(tmp_path / "open.onnx"))
    assert "--layout NCHW or --layout NHWC" in refused(tmp_path / "open.onnx", UsageError)


def test_a_size_that_does_not_fit_the_network(write_file: WriteFile, refused: Refused) -> None:
    def edit(model: onnx.ModelProto) -> None:
        table = numpy_helper.from_array(np.zeros((1, 1, 32, 96), np.float32), "table")  # a map of another size
        model.graph.initializer.append(table)
        model.graph.node[2].input[1] = "table"

    message = refused(write_file(edit=edit))
    assert "'offset'" in message or "offset" in message
    assert "--res" in message


def test_a_map_that_is_constant_or_not_finite(write_file: WriteFile, refused: Refused) -> None:
    def constant(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "weight"))

    def infinite(model: onnx.ModelProto) -> None:
        model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.float32(np.inf), "one"))

    assert "no depth map" in refused(write_file(edit=constant))
    assert "NaN or infinity" in refused(write_file(edit=infinite))
