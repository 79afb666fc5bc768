"""Evaluation protocols against the formulas of the published code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mvde.alignment import Alignment
from mvde.camera import Camera
from mvde.datasets.sample import DepthSample
from mvde.errors import UsageError
from mvde.metrics import depth_metrics
from mvde.pipelines.eval_depth import evaluate
from mvde.protocols import Averaging, Crop, EvaluationProtocol, ProtocolName, parse_range, protocol_named


def published_mask(name: str, gt: np.ndarray) -> np.ndarray:
    """Valid-pixel mask of the evaluation code of BTS and monodepth2."""
    h, w = gt.shape
    top = 10.0 if name.startswith("nyu") else 80.0
    valid = np.logical_and(gt > 1e-3, gt < top)
    crop = np.zeros(gt.shape)
    if name == "kitti-garg":
        box = np.array([0.40810811 * h, 0.99189189 * h, 0.03594771 * w, 0.96405229 * w]).astype(np.int32)
        crop[box[0] : box[1], box[2] : box[3]] = 1
    elif name == "kitti-eigen":
        crop[int(0.3324324 * h) : int(0.91351351 * h), int(0.0359477 * w) : int(0.96405229 * w)] = 1
    else:
        crop[45:471, 41:601] = 1
    return np.logical_and(valid, crop)


def published_errors(gt: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """``compute_errors`` of BTS and monodepth2, with log10 and SILog of BTS."""
    thresh = np.maximum(gt / pred, pred / gt)
    err = np.log(pred) - np.log(gt)
    return {
        "abs_rel": np.mean(np.abs(gt - pred) / gt),
        "sq_rel": np.mean(((gt - pred) ** 2) / gt),
        "rmse": np.sqrt(((gt - pred) ** 2).mean()),
        "rmse_log": np.sqrt(((np.log(gt) - np.log(pred)) ** 2).mean()),
        "silog": np.sqrt(np.mean(err**2) - np.mean(err) ** 2) * 100,
        "log10": np.mean(np.abs(np.log10(pred) - np.log10(gt))),
        "delta1": (thresh < 1.25).mean(),
        "delta2": (thresh < 1.25**2).mean(),
        "delta3": (thresh < 1.25**3).mean(),
    }


class Frames:
    """Frames of a benchmark's size; ground truth has holes and exceeds the protocols' range at both ends."""

    depth_range_m = (1e-3, 80.0)

    def __init__(self, size: tuple[int, int], farthest_m: float) -> None:
        rng = np.random.default_rng(5)
        self.gt = [rng.uniform(0.0, farthest_m, size).astype(np.float32) for _ in range(3)]
        for k, gt in enumerate(self.gt):
            gt[rng.random(size) < 0.3 * k] = 0
        self.pred = [(rng.uniform(0.5, 1.6, size) * gt + 0.02).astype(np.float32) for gt in self.gt]

    def __len__(self) -> int:
        return len(self.gt)

    def __getitem__(self, index: int) -> DepthSample:
        rgb = np.full((*self.gt[0].shape, 3), index, np.uint8)
        return DepthSample(rgb, self.gt[index], None, f"frame {index}")

    def predict(self, images: list[np.ndarray], cameras: list[Camera | None]) -> list[np.ndarray]:
        return [self.pred[int(image[0, 0, 0])] for image in images]


@pytest.mark.parametrize("name", list(ProtocolName))
@pytest.mark.parametrize("alignment", ["none", "median"])
def test_a_protocol_gives_the_published_code_s_numbers(name: ProtocolName, alignment: str) -> None:
    top = 10.0 if name == ProtocolName.NYU_EIGEN else 80.0
    frames = Frames((480, 640) if top == 10.0 else (375, 1242), 1.3 * top)
    totals = evaluate(frames.predict, frames, protocol_named(name), [alignment])[Alignment(alignment)]
    rows, pixels = [], []
    for gt, pred in zip(frames.gt, frames.pred, strict=True):
        mask = published_mask(name, gt)
        p, g = pred[mask].astype(np.float64), gt[mask].astype(np.float64)
        if alignment == "median":
            p = p * (np.median(g) / np.median(p))
        p[p < 1e-3] = 1e-3
        p[p > top] = top
        rows.append(published_errors(g, p))
        pixels.append((g, p))
    for key in rows[0]:
        assert totals.overall()[key] == pytest.approx(np.mean([row[key] for row in rows]), rel=1e-9), key
    pooled = published_errors(*(np.concatenate(part) for part in zip(*pixels, strict=True)))
    assert totals.overall(Averaging.PIXELS) == pytest.approx(pooled, rel=1e-9)
    assert totals.overall(Averaging.PIXELS) != pytest.approx(totals.overall(), rel=1e-6)
    known = sum(int((gt > 0).sum()) for gt in frames.gt)
    assert totals.share_counted == pytest.approx(sum(len(g) for g, _ in pixels) / known)


def test_truth_beyond_the_model_s_range_counts() -> None:
    """A prediction clamped to 10 m of a wall at 16 m has AbsRel 6 / 16."""

    class Wall(Frames):
        def __init__(self) -> None:
            super().__init__((8, 8), 1.0)
            self.gt = [np.full((8, 8), 16, np.float32)]
            self.pred = [np.full((8, 8), 10, np.float32)]

    wall = Wall()
    totals = evaluate(wall.predict, wall, EvaluationProtocol((1e-3, 80.0)))[Alignment.NONE]
    assert totals.overall()["abs_rel"] == pytest.approx(0.375)
    assert totals.share_counted == 1
    wall.pred = [np.full((8, 8), 500, np.float32)]  # clamped to the range
    totals = evaluate(wall.predict, wall, EvaluationProtocol((1e-3, 80.0)))[Alignment.NONE]
    assert totals.overall()["abs_rel"] == pytest.approx(64 / 16)


def test_a_prediction_is_clamped_after_its_alignment() -> None:
    target, pred = np.array([1.0, 2.0, 4.0, 8.0, 9.0]), np.array([0.1, 0.2, 0.4, 0.8, 5.0])
    found = depth_metrics(pred, target, alignment="median", range_m=(1e-3, 10.0))
    assert found["abs_rel"] == pytest.approx((0 + 0 + 0 + 0 + 1 / 9) / 5)


def test_crops_know_their_sizes() -> None:
    assert Crop.NONE.mask((3, 4)).all()
    assert int(Crop.NYU_EIGEN.mask((480, 640)).sum()) == 426 * 560
    with pytest.raises(UsageError, match="480x640 pixels, but a frame has 240x320"):
        Crop.NYU_EIGEN.mask((240, 320))


def test_a_protocol_says_what_it_is() -> None:
    protocol = protocol_named(ProtocolName.KITTI_GARG)
    line = "kitti-garg: range 0.001-80 m, crop garg, split test, averaged over images"
    assert protocol.describe() == line
    assert protocol.to_dict()["range_m"] == [1e-3, 80.0]
    assert str(protocol.source).startswith("https://")
    assert protocol.with_range((1e-3, 80.0)) == protocol
    assert protocol.with_range((1e-3, 50.0)).describe().startswith("kitti-garg with another range: range 0.001-50 m")


def test_a_range_is_two_numbers_in_order() -> None:
    assert parse_range("0.5,30") == (0.5, 30.0)
    for text in ("1", "1,2,3", "a,b", "5,1", "1,1", "-1,5", "1,inf", "nan,5", ""):
        with pytest.raises(UsageError, match="MIN,MAX"):
            parse_range(text)
    assert math.isfinite(EvaluationProtocol((0.0, 1.0)).range_m[1])
