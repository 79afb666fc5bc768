"""Sky, mask and confidence of a network in the runtime: by hand, with and without libmvde, and from built engines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde import native
from mvde.artifact import GraphArtifact
from mvde.contract import DepthKind, OutputRole
from mvde.engines.base import EngineId, EngineInfo
from mvde.engines.build import build_engine
from mvde.engines.store import load_engine
from mvde.errors import ManifestError, UsageError
from mvde.manifest import EngineManifest
from mvde.runtime.depth import DepthRuntime

pytest.importorskip("onnxruntime")

RESOLUTION = (32, 48)
STATS = ("valid", "max", "conf")
Maps = dict[OutputRole, np.ndarray]


class Engine:
    """Engine with the given maps (H, W), whatever the image."""

    def __init__(self, info: EngineInfo, maps: Maps) -> None:
        self.info, self.maps = info, maps

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.infer_maps(images)[OutputRole.DEPTH]

    def infer_maps(self, images: np.ndarray) -> Maps:
        return {role: np.repeat(one[None], len(images), axis=0).astype(np.float32) for role, one in self.maps.items()}

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_graph: Callable[..., GraphArtifact]) -> Path:
    """Engine whose sky is red, mask green, and confidence blue / 255, with thresholds of 0.5."""
    root = tmp_path_factory.mktemp("masks")
    source = write_graph(root / "export", roles=(OutputRole.SKY, OutputRole.MASK, OutputRole.CONFIDENCE))
    images = np.random.default_rng(0).integers(0, 256, (2, *RESOLUTION, 3), np.uint8)
    return build_engine(source, EngineId.parse("onnxruntime:fp32"), images, root=root / "engines").folder


@pytest.fixture
def open_runtime(folder: Path) -> Callable[..., DepthRuntime]:
    """Opener of a runtime with maps (32, 48) by role, of a kind."""
    engine, manifest = load_engine(folder / "engine.json")
    engine.close()

    def open_with(maps: Maps, kind: DepthKind = DepthKind.METRIC, **options: object) -> DepthRuntime:
        outputs = tuple(output for output in manifest.outputs if output.role in maps)
        changed = dataclasses.replace(manifest, outputs=outputs, depth_kind=kind, unit=kind.unit)
        return DepthRuntime.load(Engine(engine.info, maps), manifest=changed, **options)

    return open_with


@pytest.fixture(params=["libmvde", "NumPy"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with the library, and without one."""
    if request.param == "NumPy":
        monkeypatch.setattr(native, "is_available", lambda: False)
    elif not native.is_available():
        pytest.skip("libmvde is not built: make native")


def thirds() -> Maps:
    """Sky in the left third, masked in the middle one above row 16, depth 2; confidence grows with the rows."""
    x, y = np.arange(48), np.arange(32)[:, None]
    return {
        OutputRole.DEPTH: np.full(RESOLUTION, 2.0),
        OutputRole.SKY: np.where(x < 16, 0.5, 0.49) + 0 * y,  # the threshold itself is sky
        OutputRole.MASK: np.where((x >= 16) & (x < 32) & (y < 16), 0.49, 0.5),  # and valid
        OutputRole.CONFIDENCE: y / 32 + 0 * x,
    }


BLANK = np.zeros((*RESOLUTION, 3), np.uint8)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("has_sky", [True, False])
@pytest.mark.parametrize("has_mask", [True, False])
def test_sky_is_infinitely_far_and_a_mask_leaves_nothing(
    has_sky: bool, has_mask: bool, open_runtime: Callable[..., DepthRuntime]
) -> None:
    maps = thirds()
    for role, is_given in ((OutputRole.SKY, has_sky), (OutputRole.MASK, has_mask)):
        if not is_given:
            maps.pop(role)
    runtime = open_runtime(maps, stats=STATS)
    result = runtime.infer(BLANK)
    expected = np.full(RESOLUTION, 2.0, np.float32)
    expected[:, :16] = math.inf if has_sky else 2
    expected[:16, 16:32] = math.nan if has_mask else 2
    np.testing.assert_array_equal(result.depth, expected)
    valid = np.array([not has_sky, not has_mask, 1, not has_sky, 1, 1])
    confidence = np.repeat([7.5 / 32, 23.5 / 32], 3)
    np.testing.assert_allclose(result.stats, np.stack([valid, 2 * valid, confidence * valid], axis=1), rtol=1e-6)
    np.testing.assert_array_equal(runtime.patch_stats(BLANK), result.stats)
    np.testing.assert_array_equal(result.millimetres(), np.where(np.isfinite(expected), 2000, 0))
    zeros = open_runtime(maps, invalid="zero").infer(BLANK).depth
    np.testing.assert_array_equal(zeros, np.where(np.isfinite(expected), expected, 0))
    batch = runtime.infer(np.stack([BLANK, BLANK]))
    np.testing.assert_array_equal(batch.depth, np.stack([expected, expected]))


@pytest.mark.usefixtures("kernel")
def test_sky_wins_over_a_mask_and_over_what_is_no_distance(open_runtime: Callable[..., DepthRuntime]) -> None:
    maps = thirds()
    maps[OutputRole.MASK][:, :4] = 0
    maps[OutputRole.DEPTH][:, 4:8] = math.nan
    maps[OutputRole.SKY][0, 47] = math.nan  # not sky
    maps[OutputRole.MASK][0, 46] = math.nan  # not valid
    depth = open_runtime(maps).infer(BLANK).depth
    assert (depth[:, :16] == math.inf).all()
    assert depth[0, 47] == 2
    assert math.isnan(depth[0, 46])


@pytest.mark.usefixtures("kernel")
def test_an_inverse_map_is_zero_in_the_sky_and_nan_where_masked(
    open_runtime: Callable[..., DepthRuntime],
) -> None:
    maps = thirds()
    result = open_runtime(maps, DepthKind.INVERSE_RELATIVE).infer(BLANK)
    assert (result.depth[:, :16] == 0).all()
    assert np.isnan(result.depth[:16, 16:32]).all()
    assert (result.depth[16:, 16:] == 2).all()


@pytest.mark.usefixtures("kernel")
def test_bars_have_neither_sky_nor_confidence(open_runtime: Callable[..., DepthRuntime]) -> None:
    """The network sees sky in the bars, too."""
    maps = thirds()
    del maps[OutputRole.MASK]
    result = open_runtime(maps, stats=STATS).infer(np.zeros((32, 16, 3), np.uint8), "letterbox")
    np.testing.assert_array_equal(result.depth, np.full((32, 16), 2, np.float32))
    np.testing.assert_allclose(result.stats[:, 0], [0, 1, 0, 0, 1, 0])
    np.testing.assert_allclose(result.stats[:, 2], [0, 7.5 / 32, 0, 0, 23.5 / 32, 0], rtol=1e-6)


def test_confidence_alone_needs_no_map_where_no_column_asks(open_runtime: Callable[..., DepthRuntime]) -> None:
    maps = {role: one for role, one in thirds().items() if role in (OutputRole.DEPTH, OutputRole.CONFIDENCE)}
    runtime = open_runtime(maps)
    runtime.engine.infer_maps = None
    runtime.engine.infer = lambda images: maps[OutputRole.DEPTH][None].astype(np.float32)
    assert runtime.infer(BLANK).stats.shape == (6, 3)


def test_a_column_of_confidence_needs_a_network_that_gives_one(
    folder: Path, open_runtime: Callable[..., DepthRuntime], engine_folder: Path
) -> None:
    with DepthRuntime.load(folder, stats=("conf", "mean")) as runtime:
        assert runtime.infer(BLANK).stat_names == ("conf", "mean")
    depth_alone = {OutputRole.DEPTH: thirds()[OutputRole.DEPTH]}
    with pytest.raises(UsageError, match="stats has 'conf', which needs a network's confidence"):
        open_runtime(depth_alone, stats=("mean", "conf"))
    with pytest.raises(UsageError, match="stats has 'conf', which needs a network's confidence"):
        DepthRuntime.load(engine_folder, stats=("conf",))
    manifest: EngineManifest = load_engine(folder / "engine.json")[1]
    assert dataclasses.replace(manifest, stats=("mean", "conf")).stats == ("mean", "conf")
    with pytest.raises(ManifestError, match=r"stats is \('mean', 'conf'\), but expected some of mean, .*, valid, each"):
        dataclasses.replace(manifest, stats=("mean", "conf"), outputs=manifest.outputs[:3])


@pytest.mark.usefixtures("kernel")
def test_a_built_engine_masks_what_its_network_says(
    folder: Path, random_images: Callable[..., np.ndarray], closed_form_depth: Callable[[np.ndarray], np.ndarray]
) -> None:
    (image,) = random_images(1, *RESOLUTION, 3)
    with DepthRuntime.load(folder, stats=STATS) as runtime:
        result, streamed = runtime.infer(image), next(runtime.stream([image]))
    red, green, blue = np.moveaxis(image / 255, -1, 0)
    expected = np.where(red >= 0.5, math.inf, np.where(green >= 0.5, closed_form_depth(image), math.nan))
    np.testing.assert_allclose(result.depth, expected, rtol=1e-6)
    np.testing.assert_array_equal(streamed.depth, result.depth)
    np.testing.assert_array_equal(streamed.stats, result.stats)
    for row, column in ((0, 0), (1, 2)):
        patch = np.s_[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        valid = np.isfinite(expected[patch])
        of_patch = result.stats[3 * row + column]
        wanted = [valid.mean(), expected[patch][valid].max(), blue[patch][valid].mean()]
        np.testing.assert_allclose(of_patch, wanted, rtol=1e-5)
