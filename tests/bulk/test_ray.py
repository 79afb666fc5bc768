"""Ray: the rows of one process, also when a node is lost in the middle."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("ray.data")

from mvde.bulk.inputs import InputOptions
from mvde.bulk.ray_pool import ray_runner
from mvde.bulk.run import compute_stats
from mvde.errors import BackendError

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


@pytest.mark.extended
def test_an_address_that_nobody_listens_at_is_refused(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match=r"no Ray cluster at 127\.0\.0\.1:1:"):
        compute_stats(forms["folder"], engine_folder, tmp_path / "out", runner=ray_runner("127.0.0.1:1", 1, tmp_path))
