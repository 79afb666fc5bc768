"""Balancing leaves the fp32 graph bit-identical and makes int8 far more accurate with outlier channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from mvde.engines.base import Graph  # noqa: E402
from mvde.export.graph.load import load_fp32  # noqa: E402
from mvde.export.graph.run import GraphSession  # noqa: E402
from mvde.export.precision import HeldOut, LowerOptions, lower_graph  # noqa: E402
from mvde.export.precision.balance import BalanceKind, balance, balancing_factors, find_balances  # noqa: E402
from mvde.export.precision.calibrate import collect  # noqa: E402
from mvde.export.precision.quantize import find_products  # noqa: E402
from mvde.export.range_method import RangeMethod  # noqa: E402
from mvde.precision import Precision  # noqa: E402
from tests.export.precision.conftest import judged, widen_targets  # noqa: E402

NUM_LAYERS = 4
FACTOR = 30.0


@pytest.fixture(scope="module")
def images(random_images: Callable[..., np.ndarray]) -> np.ndarray:
    return random_images(4, 48, 80, 3)


@pytest.fixture(scope="module")
def planted(exported: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the outlier channels that trained towers have, and the same depth.

    Three channels of every layer normalisation are scaled up by 30, and the weights that read them scaled down by 30.
    """
    model = onnx.load(str(exported[0]))
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    factors = np.ones(32, np.float32)
    factors[[3, 11, 20]] = FACTOR

    def replace(node: onnx.NodeProto, index: int, array: np.ndarray) -> None:
        name = f"{node.name}.{index}.planted"
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        node.input[index] = name

    for norm in [node for node in model.graph.node if node.op_type == "LayerNormalization"]:
        for index in (1, 2):
            replace(norm, index, arrays[norm.input[index]] * factors)
        for reader in [node for node in model.graph.node if norm.output[0] in node.input]:
            replace(reader, 1, arrays[reader.input[1]] / factors[:, None])
    path = tmp_path_factory.mktemp("planted") / "tiny.onnx"
    onnx.save(model, str(path))
    return path


def test_every_kind_of_activation_is_balanced_and_depth_keeps_its_bits(
    exported: tuple[Path, int], planted: Path, images: np.ndarray
) -> None:
    for path in (exported[0], planted):
        base = load_fp32(path, Precision.INT8)
        products = find_products(base.graph)
        axes = {item.activation: item.activation_axis for item in products.values()}
        balances = find_balances(base.graph, products, collect(base, axes, images))
        count = {kind: sum(item.kind is kind for item in balances) for kind in BalanceKind}
        assert count[BalanceKind.NORMS] == 2 * NUM_LAYERS
        assert count[BalanceKind.VALUES] == NUM_LAYERS
        assert any(np.any(item.factors != 1) for item in balances)
        balanced = base.clone()
        balance(balanced, balances)
        np.testing.assert_array_equal(GraphSession(balanced).depth(images), GraphSession(base).depth(images))
        reached = collect(balanced, axes, images)
        for item in balances:
            assert reached[item.activation].largest == pytest.approx(item.largest, rel=1e-6)


def test_a_tower_with_outlier_channels_gains_much_and_the_record_says_so(
    exported: tuple[Path, int],
    planted: Path,
    images: np.ndarray,
    random_images: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widen_targets(monkeypatch, Precision.INT8)
    held_out = (HeldOut(random_images(3, 48, 80, 3, seed=1), "noise"),)
    options = LowerOptions(images, held_out, method=RangeMethod.MINMAX)

    def mean_error(path: Path) -> tuple[float, dict[str, str]]:
        record = lower_graph(Graph(path), Precision.INT8, tmp_path, options).lowering
        assert record is not None
        assert record.calibration is not None
        return judged(record).mean_rel, record.calibration.balanced

    balanced, reasons = mean_error(planted)
    usual, _ = mean_error(exported[0])
    monkeypatch.setattr("mvde.export.precision.products.find_balances", lambda *given: [])
    unbalanced, none = mean_error(planted)
    assert reasons[str(BalanceKind.NORMS)].startswith("balanced: balancing 8 changes the mean error from")
    assert none == {}
    assert unbalanced > 1.5 * usual
    assert balanced - usual < (unbalanced - usual) / 3  # recovers most of the loss due to outliers


def test_factors_are_powers_of_two_and_leave_channels_of_zeros_alone() -> None:
    factors = balancing_factors(np.array([0.0, 1.0, 16.0, 1.0, 4.0]), np.array([1.0, 1.0, 1.0, 0.0, 0.25]))
    np.testing.assert_array_equal(np.log2(factors), np.rint(np.log2(factors)))
    assert factors[0] == factors[3] == 1
    assert factors[2] == factors[4] == 4 * factors[1]
    assert balancing_factors(np.array([1.0, 1e30]), np.ones(2)).max() <= 2**10


@pytest.mark.parametrize("change", ["a second reader", "an output", "no constant scale"])
def test_an_activation_that_something_else_reads_is_left(
    exported: tuple[Path, int], images: np.ndarray, change: str
) -> None:
    base = load_fp32(exported[0], Precision.INT8)
    products = find_products(base.graph)
    axes = {item.activation: item.activation_axis for item in products.values()}
    statistics = collect(base, axes, images[:1])
    norm = next(node for node in base.graph if node.op_type == "LayerNormalization")
    value = norm.outputs[0]
    if change == "a second reader":
        base.graph.insert_after(norm, ir.Node("", "Identity", [value]))
    elif change == "an output":
        base.graph.outputs.append(value)
    else:
        products = {name: dataclasses.replace(item) for name, item in products.items()}
        norm.inputs[1].const_value = None
    balances = find_balances(base.graph, products, statistics)
    assert value.name not in {item.activation for item in balances}
