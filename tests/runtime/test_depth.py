"""DepthRuntime on an engine with closed-form depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import mvde
from mvde.contract import DepthKind, Interpolation, PreprocessRecord
from mvde.engines.store import find, load_engine
from mvde.errors import ArtifactError, ImageError, UsageError
from mvde.resampling import Resampling
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.placement import depth_to_source, fit_image, place
from mvde.stats import depth_to_patch_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def runtime(engine_folder: Path) -> Iterator[DepthRuntime]:
    with DepthRuntime.load(engine_folder) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def batch_runtime(build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DepthRuntime]:
    with DepthRuntime.load(build_tiny(tmp_path_factory.mktemp("batch"), batch=2)) as loaded:
        yield loaded


def test_an_image_of_the_models_size_gives_its_depth_and_statistics(
    runtime: DepthRuntime, random_images: Callable, closed_form_depth: Callable
) -> None:
    image = random_images(32, 48, 3)
    result = runtime.infer(image)
    expected = closed_form_depth(image)
    assert (result.depth.dtype, result.stats.dtype) == (np.float32, np.float32)
    assert (result.grid, result.stats.shape, result.stat_names) == ((2, 3), (6, 3), ("mean", "var", "grad"))
    np.testing.assert_allclose(result.depth, expected, rtol=1e-6)
    patches = expected.reshape(2, 16, 3, 16).swapaxes(1, 2).reshape(6, 256)
    np.testing.assert_allclose(result.stats[:, 0], patches.mean(1), rtol=1e-5)
    np.testing.assert_allclose(result.stats[:, 1], patches.var(1), rtol=1e-4)
    assert min(result.timings.pre_ms, result.timings.infer_ms, result.timings.post_ms) > 0
    assert result.timings.total_ms == pytest.approx(
        result.timings.pre_ms + result.timings.infer_ms + result.timings.post_ms
    )


@pytest.mark.parametrize("size", [(480, 640), (7, 900), (2, 2)])
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_depth_is_at_the_pixels_of_the_image(runtime: DepthRuntime, fit: str, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 51, np.uint8)  # 0.5 + 4 · 51/255 = 1.3 m
    depth = runtime.infer(image, fit=fit).depth  # type: ignore[arg-type]
    assert depth.shape == size
    seen = depth > 0
    np.testing.assert_allclose(depth[seen], 1.3, rtol=1e-5)
    assert seen.all() == (fit != "crop" or size[0] * 48 == size[1] * 32)
    assert np.isnan(depth[~seen]).all()


def test_what_was_not_seen_is_zero_on_request(engine_folder: Path) -> None:
    image = np.full((7, 900, 3), 51, np.uint8)
    with DepthRuntime.load(engine_folder, invalid="zero") as runtime:
        depth = runtime.infer(image, fit="crop").depth
    seen = depth > 0
    assert (depth[~seen] == 0).all()
    assert 0 < seen.sum() < depth.size
    with pytest.raises(UsageError, match="invalid is 'none': expected 'nan', or 'zero'"):
        DepthRuntime.load(engine_folder, invalid="none")


class _Saying:
    """The engine ``inner`` with another map."""

    def __init__(self, inner: object, depth: NDArray[np.float32]) -> None:
        self._inner, self._depth = inner, depth

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.broadcast_to(self._depth, images.shape[:3])


@pytest.mark.parametrize(("kind", "at_zero"), [("metric", np.nan), ("inverse_relative", 0.0)])
def test_only_an_inverse_map_may_be_zero(kind: str, at_zero: float, engine_folder: Path) -> None:
    engine, manifest = load_engine(find(engine_folder))
    depth = np.ones((32, 48), np.float32)
    depth[:16] = 0.0
    changed = dataclasses.replace(manifest, depth_kind=DepthKind(kind), unit=DepthKind(kind).unit)
    with DepthRuntime(_Saying(engine, depth), changed) as runtime:  # type: ignore[arg-type]
        result = runtime.infer(np.zeros((32, 48, 3), np.uint8))
        np.testing.assert_array_equal(result.depth, np.where(depth == 0, np.float32(at_zero), depth))
        np.testing.assert_array_equal(result.stats[:, 0], [0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(runtime.patch_stats(np.zeros((32, 48, 3), np.uint8)), result.stats)


def test_patches_in_the_bars_have_no_statistics(runtime: DepthRuntime) -> None:
    image = np.full((32, 16, 3), 51, np.uint8)  # a third of the width: the outer two patch columns are padding
    stats = runtime.infer(image, fit="letterbox").stats.reshape(2, 3, 3)
    np.testing.assert_allclose(stats[:, 1, 0], 1.3, rtol=1e-5)
    np.testing.assert_allclose(stats[:, 1, 1:], 0, atol=1e-6)  # no gradient at the border of the padding
    assert (stats[:, [0, 2]] == 0).all()


def test_frames_enter_as_the_manifest_says_unless_told_otherwise(
    runtime: DepthRuntime, random_images: Callable, closed_form_depth: Callable
) -> None:
    record = PreprocessRecord(
        fit="letterbox",
        multiple=16,
        interpolation=Interpolation.BICUBIC,
        antialias=False,
        padding=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        pixel_range=1.0,
        colour="RGB",
        bicubic_coefficient=-0.75,
    )
    keeping = DepthRuntime(runtime.engine, dataclasses.replace(runtime.manifest, preprocess=record))
    image = random_images(1, 60, 25, 3)[0]
    expected = place((60, 25), (32, 48), "letterbox", Resampling.of(record))
    assert keeping.placement((60, 25)) == expected
    assert expected.target_box.size == (32, 16)
    depth = closed_form_depth(fit_image(image, expected)[None])[0]
    np.testing.assert_allclose(keeping.infer(image).depth, depth_to_source(depth, expected), rtol=1e-5)
    np.testing.assert_array_equal(next(keeping.stream([image])).depth, keeping.infer(image).depth)
    np.testing.assert_array_equal(keeping.patch_stats(image), keeping.infer(image).stats)
    assert (keeping.infer(image).stats.reshape(2, 3, 3)[:, 0] == 0).all()
    stretched = keeping.infer(image, "stretch")
    assert (stretched.stats.reshape(2, 3, 3)[:, 0, 0] > 0).all()
    assert keeping.placement((60, 25), "stretch").resampling == expected.resampling


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_of_any_length_is_its_images(
    batch_runtime: DepthRuntime, random_images: Callable, closed_form_depth: Callable, count: int
) -> None:
    images = random_images(count, 32, 48, 3, seed=count)
    result = batch_runtime.infer(images)
    np.testing.assert_allclose(result.depth, closed_form_depth(images), rtol=1e-6)
    assert result.stats.shape == (count, 6, 3)
    single = batch_runtime.infer(images[-1])
    np.testing.assert_array_equal(single.depth, result.depth[-1])
    np.testing.assert_array_equal(single.stats, result.stats[-1])


def test_a_stream_gives_what_infer_gives_in_order(runtime: DepthRuntime, random_images: Callable) -> None:
    frames = [random_images(40 + seed, 50, 3, seed=seed) for seed in range(12)]
    for frame, result in zip(frames, runtime.stream(frames), strict=True):
        alone = runtime.infer(frame)
        np.testing.assert_array_equal(result.depth, alone.depth)
        np.testing.assert_array_equal(result.stats, alone.stats)


def test_a_stream_through_a_batch_engine_takes_frames_of_different_sizes(
    batch_runtime: DepthRuntime, random_images: Callable
) -> None:
    frames = [random_images(30 + 2 * seed, 50, 3, seed=seed) for seed in range(5)]
    depths = [result.depth for result in batch_runtime.stream(iter(frames))]
    assert [depth.shape for depth in depths] == [frame.shape[:2] for frame in frames]
    np.testing.assert_array_equal(depths[4], batch_runtime.infer(frames[4]).depth)


def test_a_bad_frame_of_a_stream_fails_in_its_place(runtime: DepthRuntime, random_images: Callable) -> None:
    frames = [random_images(32, 48, 3), random_images(32, 48, 3), random_images(32, 48)]
    results = runtime.stream(frames)
    next(results)
    next(results)
    with pytest.raises(ImageError, match="grey"):
        next(results)


def test_one_runtime_serves_several_threads(
    runtime: DepthRuntime, random_images: Callable, closed_form_depth: Callable
) -> None:
    frames = [random_images(32, 48, 3, seed=seed) for seed in range(64)]
    with ThreadPoolExecutor(4) as pool:
        for frame, result in zip(frames, pool.map(runtime.infer, frames), strict=True):
            np.testing.assert_allclose(result.depth, closed_form_depth(frame), rtol=1e-6)


def test_two_streams_share_a_runtime(runtime: DepthRuntime, random_images: Callable) -> None:
    frames = [random_images(32, 48, 3, seed=seed) for seed in range(10)]
    for one, other in zip(runtime.stream(frames), runtime.stream(frames), strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)


def test_infer_refuses_what_is_no_rgb_image(runtime: DepthRuntime) -> None:
    for image in (np.zeros((4, 4), np.uint8), np.zeros((2, 4, 4, 4), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)):
        with pytest.raises(ImageError):
            runtime.infer(image)
    with pytest.raises(UsageError, match="fit 'zoom'"):
        runtime.infer(np.zeros((4, 4, 3), np.uint8), fit="zoom")  # type: ignore[arg-type]


def test_statistics_are_those_of_the_models_grid(runtime: DepthRuntime, random_images: Callable) -> None:
    """Statistics come from depth at the model's resolution, not from the resized result."""
    image = random_images(100, 100, 3)
    small = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR))
    expected = depth_to_patch_stats(runtime.infer(small).depth[None], 16)[0]
    np.testing.assert_allclose(runtime.infer(image).stats, expected, rtol=1e-5, atol=1e-7)


def test_load_takes_an_id_a_path_a_name_and_an_engine(engine_folder: Path, tmp_path: Path) -> None:
    for source in ("fp32", "openvino:fp32", None):
        assert mvde.DepthRuntime.load(source, engine_dir=engine_folder.parent).info.id == "openvino:fp32"
    assert mvde.DepthRuntime.load("fp32", name="tiny", resolution=(32, 48), engine_dir=engine_folder.parent).info
    for path in (engine_folder, str(engine_folder), engine_folder / "engine.blob"):
        assert mvde.DepthRuntime.load(path).info.resolution == (32, 48)
    engine, manifest = load_engine(engine_folder / "engine.blob")
    assert mvde.DepthRuntime.load(engine, manifest=manifest).infer(np.zeros((9, 9, 3), np.uint8)).depth.shape == (9, 9)
    with pytest.raises(UsageError, match="manifest="):
        mvde.DepthRuntime.load(engine)
    with pytest.raises(ArtifactError, match="mvde build --engine openvino:fp32"):
        mvde.DepthRuntime.load("openvino:fp32", engine_dir=tmp_path)


def test_a_closed_runtime_says_so(engine_folder: Path) -> None:
    with DepthRuntime.load(engine_folder) as loaded:
        pass
    with pytest.raises(UsageError, match="closed"):
        loaded.infer(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("batch", [False, True])
def test_an_array_of_another_library_is_one_sentence(engine_folder: Path, batch: bool) -> None:
    torch = pytest.importorskip("torch")
    frame = torch.zeros((2, 60, 80, 3) if batch else (60, 80, 3), dtype=torch.uint8)
    with DepthRuntime.load(engine_folder) as runtime:
        with pytest.raises(ImageError, match=r"a NumPy array.*got a Tensor; use np\.from_dlpack\(image\)"):
            runtime.infer(frame)
        with pytest.raises(ImageError, match="got a Tensor"):
            next(runtime.stream([frame]))
