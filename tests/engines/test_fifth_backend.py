"""A third-party backend: one object and one registry line suffice to build, load, run and benchmark it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mvde.artifact import load_engine_artifact
from mvde.bench.measure import BenchOptions, measure_engines
from mvde.contract import OutputRole
from mvde.engines import store
from mvde.engines.backends import BACKENDS
from mvde.engines.base import (
    Backend,
    BuildOptions,
    Compiled,
    DeviceEngine,
    Engine,
    EngineId,
    EngineInfo,
    Graph,
    StatsEngine,
    Support,
    check_images,
    closed_error,
)
from mvde.engines.build import build_engine, graph_rest
from mvde.engines.opened import OpenedEngine
from mvde.engines.settings import Setting, check_names, yes_or_no
from mvde.errors import EngineIdError, IncompatibleEngineError, ParityError, UsageError
from mvde.manifest import Manifest
from mvde.precision import Precision
from mvde.records import DeviceRecord, EngineRecord
from mvde.runtime.depth import DepthRuntime

if TYPE_CHECKING:
    from mvde.engines.base import Maps

pytest.importorskip("onnxruntime")  # runs the reference graph for parity

ENGINE_FILE = "engine.npy"


class NumPyEngine:
    """Engine that computes the fixtures' closed-form depth: offset plus gain times the mean colour."""

    def __init__(self, offset_m: float, gain_m: float, info: EngineInfo) -> None:
        self._numbers: tuple[float, float] | None = (offset_m, gain_m)
        self._info = info

    @property
    def info(self) -> EngineInfo:
        return self._info

    def infer(self, images: np.ndarray) -> np.ndarray:
        if self._numbers is None:
            raise closed_error(self._info)
        check_images(images, self._info)
        offset_m, gain_m = self._numbers
        return (offset_m + gain_m * images.astype(np.float32).mean(axis=-1) / 255).astype(np.float32)

    def infer_maps(self, images: np.ndarray) -> Maps:
        return {OutputRole.DEPTH: self.infer(images)}

    def layers(self) -> str:
        return ""

    def close(self) -> None:
        self._numbers = None


class NumPyBackend:
    """CPU backend without any optional capability."""

    name = "numpy"
    preferred_precisions = ()
    lowered_precisions = ()
    proves_per_device = False

    def library_version(self) -> str:
        return np.__version__

    def support(self, precision: Precision) -> Support:
        works = precision is Precision.FP32
        return Support(works, "computes in fp32" if works else f"no {precision} here")

    def rests(self, precision: Precision) -> tuple[Precision, ...]:
        return ()

    def graph_rest(self, rest: Precision) -> Precision:
        return rest

    def cpu_features(self) -> tuple[str, ...]:
        return ()

    def weight_bits(self) -> int:
        return 8

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("is_wrong", "yes: compute another depth"),)

    def tuning_settings(self, precision: Precision, options: BuildOptions) -> list[dict[str, Any]]:
        return []

    def check_source(self, manifest: Manifest, precision: Precision, options: BuildOptions, folder: Path) -> list[str]:
        check_names(self.name, options.settings, self.settings())
        return []

    def content_key(self, manifest: Manifest, precision: Precision, options: BuildOptions) -> str:
        return ""

    def compile(self, graph: Graph, folder: Path, precision: Precision, options: BuildOptions) -> Compiled:
        offset_m = 0.9 if yes_or_no("is_wrong", options.settings.get("is_wrong", "no")) else 0.5
        np.save(folder / ENGINE_FILE, [offset_m, 4.0])
        return Compiled((ENGINE_FILE,), "fp32", "NumPy", {"offset_m": offset_m}, {"attention": "none at all"})

    def thread_options(self, num_threads: int) -> Mapping[str, str]:
        return {}

    def rebuild_options(self, options: BuildOptions) -> BuildOptions:
        return options

    def mismatch(self, record: EngineRecord) -> str | None:
        return None if record.library_version == np.__version__ else f"NumPy {np.__version__} is installed"

    def device_facts(self) -> DeviceRecord | None:
        return None

    def products(self, precision: Precision, size: int, count: int) -> Callable[[], object] | None:
        return None

    def load(self, opened: OpenedEngine) -> Engine:
        offset_m, gain_m = np.load(io.BytesIO(opened.content.array.tobytes()))
        info = EngineInfo.of(opened.manifest, device="NumPy", library_version=np.__version__)
        return NumPyEngine(float(offset_m), float(gain_m), info)


NUMPY: Backend = NumPyBackend()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "numpy", f"{__name__}:NUMPY")


@pytest.fixture
def build(tmp_path: Path, write_graph: Callable, random_images: Callable) -> Callable[..., Path]:
    """Builder of an fp32 engine; returns its folder."""

    def build_in(**options: Any) -> Path:
        source, images = write_graph(tmp_path / "export"), random_images(2, 32, 48, 3)
        chosen = BuildOptions(**options)
        engine_id = EngineId.parse("numpy:fp32")
        return build_engine(source, engine_id, images, root=tmp_path / "engines", options=chosen).folder

    return build_in


def test_it_is_built_loaded_and_run(build: Callable, random_images: Callable, closed_form_depth: Callable) -> None:
    folder = build(num_builds=2)
    assert folder.name == "tiny-32x48-numpy-fp32"
    manifest = load_engine_artifact(folder / ENGINE_FILE).manifest
    assert (manifest.engine.backend, manifest.engine.rewrites) == ("numpy", {"attention": "none at all"})
    assert manifest.parity.measured is not None
    image = random_images(32, 48, 3, seed=5)
    with DepthRuntime.load("numpy:fp32", engine_dir=folder.parent) as runtime:
        assert not isinstance(runtime.engine, (DeviceEngine, StatsEngine))
        np.testing.assert_allclose(runtime.infer(image).depth, closed_form_depth(image), rtol=1e-6)
        np.testing.assert_array_equal(runtime.patch_stats(image), runtime.infer(image).stats)
        with pytest.raises(UsageError, match="this is numpy:fp32; use infer"):
            runtime.infer_device(image)


def test_it_is_measured_beside_the_others(build: Callable, random_images: Callable) -> None:
    artifact = load_engine_artifact(build() / ENGINE_FILE)
    (one,) = measure_engines([artifact], [random_images(50, 60, 3)], BenchOptions(num_frames=3))
    assert (one.id, one.executed_precision, one.device, one.num_frames) == ("numpy:fp32", "fp32", "NumPy", 3)
    assert one.rewrites == {"attention": "none at all"}
    assert (one.on_device, one.device_memory_bytes) == (None, None)


def test_it_is_tuned_where_it_has_nothing_to_tune(build: Callable) -> None:
    record = load_engine_artifact(build(tune_s=0.01) / ENGINE_FILE).manifest.engine
    assert record.tuning is not None
    assert (record.tuning.chosen, len(record.tuning.candidates)) == ({}, 1)


def test_it_is_among_the_ids_that_are_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EngineId("numpy", Precision.FP32) in store.all_engine_ids()
    assert store.support(EngineId.parse("numpy:fp32")).works
    assert graph_rest(EngineId.parse("numpy:int8")) is Precision.FP32
    monkeypatch.delitem(BACKENDS, "numpy")
    with pytest.raises(EngineIdError, match="BACKEND one of onnxruntime, openvino, tensorrt, tensorrt-rtx "):
        EngineId.parse("numpy:fp32")


def test_its_settings_are_its_own(build: Callable) -> None:
    with pytest.raises(UsageError, match=r"is not for numpy, which takes is_wrong \(yes: compute another depth\)"):
        build(settings={"provider": "cpu"})


def test_it_is_held_to_the_graph_and_to_its_library_as_every_backend_is(
    build: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParityError, match=r"engine numpy:fp32 differs from the fp32 graph by more than allowed"):
        build(settings={"is_wrong": "yes"})
    path = build() / ENGINE_FILE
    monkeypatch.setattr(NumPyBackend, "mismatch", lambda self, record: "it was built with NumPy 1.0")
    with pytest.raises(IncompatibleEngineError, match="cannot run here: it was built with NumPy 1"):
        store.load_engine(path)
