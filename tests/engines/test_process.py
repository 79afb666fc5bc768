"""Use after fork: an error within a second or the same results, never a hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde import native
from mvde.engines.store import find, load_engine
from mvde.errors import BackendError, UsageError
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.fitter import FrameFitter
from mvde.runtime.placement import Fit

LIMIT_S = 10


def outcome_in_child(work: Callable[[], Any]) -> str:
    """Outcome of ``work`` in a forked child: its result or its error, as text."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(LIMIT_S)
        try:
            said = repr(work())
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os.close(writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0, f"the child failed or was killed after reporting {said!r}"
    return said


@pytest.fixture(scope="module", params=["openvino:fp32", "onnxruntime:fp32"])
def used_engine(request: pytest.FixtureRequest, build_tiny: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an engine that this process has already run."""
    pytest.importorskip(request.param.split(":")[0])
    return build_tiny(tmp_path_factory.mktemp("fork"), request.param)


def test_an_engine_of_the_parent_is_an_error_in_the_child_within_a_second(
    used_engine: Path, random_images: Callable
) -> None:
    image = random_images(60, 80, 3)
    with DepthRuntime.load(used_engine) as runtime:
        expected = runtime.infer(image).depth

        def use() -> str:
            started = time.monotonic()
            with pytest.raises(BackendError, match=r"loaded before this process was forked.*get_context\('spawn'\)"):
                runtime.infer(image)
            runtime.close()
            return "quick" if time.monotonic() - started < 1 else "slow"

        assert outcome_in_child(use) == "'quick'"
        np.testing.assert_array_equal(runtime.infer(image).depth, expected)


def test_an_engine_of_the_parent_does_not_keep_the_child_from_ending(
    used_engine: Path, random_images: Callable
) -> None:
    engine, manifest = load_engine(find(used_engine))
    engine.infer(random_images(manifest.batch, *manifest.resolution, 3))
    kept = [engine]
    del engine
    assert outcome_in_child(kept.clear) == "None"
    kept.clear()


def test_a_child_ends_as_usual_with_an_engine_of_its_parent(used_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)  # as a user's program starts: mvde sets it
    script = """
import os, signal, sys
import numpy as np
from mvde.engines.store import find, load_engine
engine, manifest = load_engine(find(sys.argv[1]))
engine.infer(np.zeros((manifest.batch, *manifest.resolution, 3), np.uint8))
child = os.fork()
signal.alarm(10)
if child:
    print(os.waitpid(child, 0)[1])
"""
    ended = subprocess.run([sys.executable, "-c", script, str(used_engine)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.strip()) == (0, "0"), ended.stderr


def test_openvino_after_a_fork_of_a_process_that_used_it_says_spawn(
    engine_folder: Path, random_images: Callable
) -> None:
    engine, manifest = load_engine(find(engine_folder))
    engine.infer(random_images(1, *manifest.resolution, 3))
    said = outcome_in_child(lambda: load_engine(find(engine_folder)))
    assert said.startswith("BackendError: ")
    assert "forked" in said
    assert "get_context('spawn')" in said


def _first_value(folder: Path, image: np.ndarray, results: Any) -> None:
    with DepthRuntime.load(folder) as runtime:
        results.put(float(runtime.infer(image).depth[0, 0]))


def test_a_spawned_child_loads_the_engine_itself(engine_folder: Path, random_images: Callable) -> None:
    image = random_images(60, 80, 3)
    with DepthRuntime.load(engine_folder) as runtime:
        expected = float(runtime.infer(image).depth[0, 0])
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        child = context.Process(target=_first_value, args=(engine_folder, image, results))
        child.start()
        assert results.get(timeout=60) == expected
        child.join(LIMIT_S)
        assert child.exitcode == 0


@pytest.mark.skipif(not native.is_available(), reason="libmvde is not built: make native")
def test_libmvde_works_on_the_child_s_own_thread(random_images: Callable) -> None:
    depth = random_images(1, 64, 96).astype(np.float32) * 0.1 + 0.1
    fitter, image = FrameFitter((32, 48)), random_images(60, 80, 3)
    small = np.empty((32, 48, 3), np.uint8)
    with native.Workers(4) as workers:

        def work() -> tuple[int, int, int]:
            stats = native.patch_stats(depth, 16, ("mean", "var"), workers=workers)
            fitted = fitter.fit(image, Fit.STRETCH, small)
            back = fitter.depth_to_source(depth[0, :32, :48].copy(), fitted)
            return hash(stats.tobytes()), hash(small.tobytes()), hash(back.tobytes())

        expected = work()

        def work_and_close() -> tuple[int, int, int]:
            result = work()
            workers.close()
            fitter.close()
            return result

        assert outcome_in_child(work_and_close) == repr(expected)
        assert work() == expected
    fitter.close()


def test_a_stream_of_the_parent_is_an_error_in_the_child(engine_folder: Path, random_images: Callable) -> None:
    frames = list(random_images(6, 60, 80, 3))
    with DepthRuntime.load(engine_folder) as runtime:
        results = runtime.stream(frames)
        next(results)
        said = outcome_in_child(lambda: next(results))
        assert said.startswith(UsageError.__name__)
        assert "began before the process was forked" in said
        assert outcome_in_child(results.close) == "None"
        assert len(list(results)) == 5
