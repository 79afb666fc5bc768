"""Small third-party files in the shapes that people have: dynamic axes, planes of floats, several opsets and maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from mvde.contract import DepthKind, stretched
from mvde.export.imported.contract import ImportContract

RESOLUTION = (32, 48)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)

Edit = Callable[[onnx.ModelProto], object]


@pytest.fixture(scope="session")
def contract() -> ImportContract:
    """Metres of pixels from 0 to 1, normalised outside the file."""
    return ImportContract(kind=DepthKind.METRIC, preprocess=stretched(MEAN, STD), patch=16)


@pytest.fixture(scope="session")
def contract_with(contract: ImportContract) -> Callable[..., ImportContract]:
    """Contract with other fields; ``pixels`` are fields of its preprocessing."""

    def change(pixels: dict[str, Any] | None = None, **fields: Any) -> ImportContract:
        preprocess = dataclasses.replace(contract.preprocess, **(pixels or {}))
        return dataclasses.replace(contract, preprocess=preprocess, **fields)

    return change


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., Path]:
    """Writer of a file ``theirs.onnx`` whose depth is ``1 + relu(weights · pixels)`` on dynamic axes."""

    def write(opset: int = 17, edit: Edit | None = None, name: str = "theirs.onnx", **external: Any) -> Path:
        model = network(opset)
        if edit is not None:
            edit(model)
        onnx.save(model, str(tmp_path / name), **external)
        return tmp_path / name

    return write


WEIGHTS = np.array([0.5, -0.25, 1.0], np.float32)


def network(opset: int = 17, sides: Sequence[int | str] = ("batch", 3, "height", "width")) -> onnx.ModelProto:
    """Graph of ``image`` float32 planes; its map goes through a reshape by computed sizes, as exporters write them."""
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["sum"], name="head"),
        helper.make_node("Relu", ["sum"], ["positive"], name="relu"),
        helper.make_node("Add", ["positive", "one"], ["metres"], name="offset"),
        helper.make_node("Shape", ["image"], ["sizes"], name="sizes"),
        helper.make_node("Gather", ["sizes", "kept"], ["wanted"], name="wanted", axis=0),
        helper.make_node("Reshape", ["metres", "wanted"], ["depth"], name="map"),
    ]
    initializers = [
        numpy_helper.from_array(WEIGHTS.reshape(1, 3, 1, 1), "weight"),
        numpy_helper.from_array(np.zeros(1, np.float32), "bias"),
        numpy_helper.from_array(np.float32(1), "one"),
        numpy_helper.from_array(np.array([0, 2, 3]), "kept"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(sides))
    depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["batch", "height", "width"])
    graph = helper.make_graph(nodes, "theirs", [image], [depth], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture(scope="session")
def expected_depth() -> Callable[[np.ndarray], np.ndarray]:
    """Depth of the file for images (B, H, W, 3) uint8, in float64."""

    def depth(images: np.ndarray) -> np.ndarray:
        pixels = (images.astype(np.float64) / 255 - MEAN) / STD
        return 1 + np.maximum(pixels @ WEIGHTS.astype(np.float64), 0)

    return depth
