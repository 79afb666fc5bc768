"""Ray: the rows of one process, also when an actor or a node is lost in the middle; engines for each node's CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.data")

from mvde.bulk import ray_pool
from mvde.bulk.inputs import InputOptions
from mvde.bulk.patches import EnginePatches, PatchRows
from mvde.bulk.ray_pool import ray_runner
from mvde.bulk.run import StatsOptions, compute_stats, plan
from mvde.bulk.work import ShardWorker, Work
from mvde.errors import BackendError, IncompatibleEngineError

ONE_EACH = InputOptions(size=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(forms: dict[str, list[str]], engine_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics computed by processes of this machine."""
    out = tmp_path_factory.mktemp("local") / "out"
    compute_stats(forms["folder"], engine_folder, out, input_options=ONE_EACH)
    return out


@pytest.mark.extended
def test_a_cluster_of_its_own_gives_the_same_bytes(
    forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    runner = ray_runner("local", 1, tmp_path)
    summary = compute_stats(forms["folder"], engine_folder, tmp_path / "out", input_options=ONE_EACH, runner=runner)
    assert (summary.done, summary.rows, summary.errors) == (12, 12, 1)
    assert contents(tmp_path / "out") == contents(finished)


@pytest.mark.extended
def test_a_node_that_is_lost_in_the_middle_costs_no_row(
    forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    out = tmp_path / "out"

    def remove_once_one_is_done() -> None:
        until = time.monotonic() + 100
        while not list(out.glob("[!.]*.parquet")):
            if time.monotonic() > until:
                return
            time.sleep(0.02)
        cluster.remove_node(second)

    remover = threading.Thread(target=remove_once_one_is_done)
    remover.start()
    try:
        import ray

        runner = ray_runner(cluster.address, 3, tmp_path)
        summary = compute_stats(forms["folder"], engine_folder, out, input_options=ONE_EACH, runner=runner)
    finally:
        remover.join()
        ray.shutdown()
        cluster.shutdown()
    assert summary.failures == []
    # What the lost node had published is found finished by the shard's second worker, which writes it again.
    assert contents(out) == contents(finished)


class KilledOnce(EnginePatches):
    """The engine's patches, whose actor is killed in the middle of a shard, once another shard is finished."""

    def __init__(self, out: Path, mark: Path) -> None:
        self.out, self.mark = out, mark

    def rows(self, *arguments: Any) -> PatchRows:
        if not self.mark.exists() and list(self.out.glob("[!.]*.parquet")):
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().rows(*arguments)


@pytest.mark.extended
def test_an_actor_that_is_killed_costs_no_row(
    forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    from ray import cloudpickle

    out, mark = tmp_path / "out", tmp_path / "mark"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors do not see the tests
    options = StatsOptions(patches=KilledOnce(out, mark))
    try:
        summary = compute_stats(
            forms["folder"], engine_folder, out, input_options=ONE_EACH, options=options,
            runner=ray_runner("local", 2, tmp_path),
        )  # fmt: skip
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert mark.exists(), "an actor was killed"
    assert (summary.done, summary.rows, summary.failures) == (12, 12, [])
    assert contents(out) == contents(finished)


@pytest.mark.extended
def test_an_address_that_nobody_listens_at_is_refused(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match=r"no Ray cluster at 127\.0\.0\.1:1:"):
        compute_stats(forms["folder"], engine_folder, tmp_path / "out", runner=ray_runner("127.0.0.1:1", 1, tmp_path))


# --- engines of nodes --------------------------------------------------------------------------------------------


@pytest.fixture
def refused(engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ray_pool._Remote:
    """Work on a node whose CPU the engine is not for, with a cache of its own for engines."""
    check = ray_pool.check_machine

    def check_machine(manifest: Any, where: str) -> None:
        if where.startswith(str(engine_folder)):
            raise IncompatibleEngineError(f"{where} was built for a CPU with avx512f, which this one lacks")
        check(manifest, where)

    monkeypatch.setattr(ray_pool, "check_machine", check_machine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work: Work = plan(engine_folder, tmp_path / "out", ONE_EACH, StatsOptions())
    return ray_pool._Remote(work, engine_folder.parent.parent / "export")


@pytest.mark.slow
def test_a_node_of_another_cpu_builds_its_engine_once_for_all_its_actors(
    refused: ray_pool._Remote, forms: dict[str, list[str]], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds, run = [], subprocess.run

    def counted(command: list[str], **options: Any) -> Any:
        builds.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    with ThreadPoolExecutor(3) as actors:  # three files of the lock, as three processes have
        opened = [one.result() for one in [actors.submit(ray_pool.engine_here, refused) for _ in range(3)]]
    assert len(builds) == 1
    assert {one.path for one in opened} != {refused.work.engine}
    assert len({one.path for one in opened}) == 1
    assert ray_pool.engine_here(refused).path == opened[0].path
    assert len(builds) == 1, "the next run finds it"
    from mvde.bulk.inputs import list_shards

    worker = ShardWorker(refused.work, opened[0])
    for shard in list_shards(forms["folder"], ONE_EACH):
        worker.run(shard)
    worker.close()
    rows = {name: content for name, content in contents(finished).items() if name.endswith(".parquet")}
    assert {name: one for name, one in contents(refused.work.out).items() if name in rows} == rows


@pytest.mark.slow
def test_a_node_without_the_tools_to_build_is_refused_with_the_command(
    refused: ray_pool._Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxruntime", "torch"):
        (tmp_path / "absent" / name).mkdir(parents=True)
        text = f"raise ModuleNotFoundError(\"No module named '{name}'\", name={name!r})\n"
        (tmp_path / "absent" / name / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "absent"), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(IncompatibleEngineError) as caught:
        ray_pool.engine_here(refused)
    assert "which this one lacks; on this node `mvde build " in str(caught.value)
    assert "pip install 'mvde[onnxruntime]'" in str(caught.value), "which mvde[export] includes"


def test_a_node_that_does_not_see_the_graph_is_refused(refused: ray_pool._Remote, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleEngineError, match=r"give the folder of its graph: --export-dir \(no graph"):
        ray_pool.engine_here(ray_pool._Remote(refused.work, tmp_path / "elsewhere"))
