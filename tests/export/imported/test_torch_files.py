"""Files that PyTorch's exporters write, with dynamic axes and a resampled position embedding, against PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("torch")

import torch

from mvde.export.imported.contract import ImportContract
from mvde.export.imported.importer import ImportRequest, import_onnx
from tests.export.imported.conftest import MEAN, STD

if TYPE_CHECKING:
    from torch import nn

RESOLUTION = (96, 160)


def make_network() -> nn.Module:
    """Patch tokens with a position embedding for 64x64, one attention layer, and a head that resizes to the picture."""
    from torch import nn
    from torch.nn import functional

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 24, 16, 16)
            self.position = nn.Parameter(torch.randn(1, 24, 4, 4) * 0.3)
            self.norm = nn.LayerNorm(24)
            self.queries, self.out = nn.Linear(24, 72), nn.Linear(24, 24)
            self.head = nn.Conv2d(24, 1, 3, padding=1)

        def forward(self, image: Any) -> Any:
            planes = self.embed(image)
            batch, channels, rows, columns = planes.shape
            planes = planes + functional.interpolate(self.position, size=(rows, columns), mode="bicubic")
            tokens = planes.flatten(2).transpose(1, 2)
            query, key, value = self.queries(self.norm(tokens)).chunk(3, -1)
            tokens = tokens + self.out(torch.softmax(query @ key.transpose(1, 2) / 5, -1) @ value)
            planes = tokens.transpose(1, 2).reshape(batch, channels, rows, columns)
            depth = self.head(functional.interpolate(planes, size=image.shape[2:], mode="bilinear", align_corners=True))
            return functional.softplus(3 * depth) + 0.5

    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return make_network()


@pytest.fixture
def export_file(network: nn.Module, tmp_path: Path) -> Callable[..., Path]:
    """Exporter of the network with dynamic axes, by TorchScript or by torch.export."""

    def export(opset: int, dynamo: bool = False) -> Path:
        path, image = tmp_path / "torch.onnx", torch.randn(1, 3, 96, 128)
        axes = {0: "batch", 2: "height", 3: "width"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options: dict[str, Any] = {"dynamic_axes": {"image": axes, "depth": axes}}
            if dynamo:
                sides = {2: 16 * torch.export.Dim("rows", min=2, max=64), 3: 16 * torch.export.Dim("columns", min=2)}
                options = {"dynamic_shapes": {"image": sides}, "verbose": False}
            torch.onnx.export(
                network, (image,), str(path), input_names=["image"], output_names=["depth"], opset_version=opset,
                dynamo=dynamo, **options,
            )  # fmt: skip
        return path

    return export


def check_import(path: Path, network: nn.Module, contract: ImportContract, out: Path) -> onnx.ModelProto:
    """Import the file at another size than it was exported with and compare with PyTorch; return the graph."""
    (imported,) = import_onnx(ImportRequest(path, contract, "torch"), [RESOLUTION], out)
    images = np.random.default_rng(0).integers(0, 256, (1, *RESOLUTION, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(imported.path), providers=["CPUExecutionProvider"])
    pixels = (images / 255 - MEAN) / STD
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float())[:, 0].numpy()
    np.testing.assert_allclose(session.run(None, {"image": images})[0], expected, rtol=2e-5)
    assert imported.manifest.num_flops is not None
    return onnx.load(imported.path)


@pytest.mark.parametrize("opset", [11, 17])
def test_a_traced_file_loses_its_shape_arithmetic(
    export_file: Callable[..., Path], network: nn.Module, contract: ImportContract, tmp_path: Path, opset: int
) -> None:
    graph = check_import(export_file(opset), network, contract, tmp_path / "export").graph
    operators = [node.op_type for node in graph.node]
    assert not {"Shape", "Gather", "Concat", "Unsqueeze", "If", "ConstantOfShape"} & set(operators)
    assert operators.count("Resize") == 1  # the position embedding is a constant
    assert len(operators) < 45


@pytest.mark.slow
def test_a_file_of_the_newer_exporter_is_taken(
    export_file: Callable[..., Path], network: nn.Module, contract: ImportContract, tmp_path: Path
) -> None:
    check_import(export_file(20, dynamo=True), network, contract, tmp_path / "export")
