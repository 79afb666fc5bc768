"""CPU lists and pinning."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mvde.bench import host
from mvde.errors import UsageError

HERE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(not HERE, reason="pinning needs Linux")


@pytest.mark.parametrize(("numbers", "text"), [((0,), "0"), ((0, 1, 2, 3, 8), "0-3,8"), ((1, 3), "1,3"), ((), "")])
def test_cpus_are_written_as_ranges(numbers: tuple[int, ...], text: str) -> None:
    assert host.as_ranges(numbers) == text


def test_a_list_of_cpus_is_read_as_taskset_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    assert host.parse_cpus("0-3, 8,8") == (0, 1, 2, 3, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected CPU numbers"),
        ("a", "expected CPU numbers"),
        ("0-", "expected CPU numbers"),
        ("-1", "expected CPU numbers"),
        ("0-999999999999", "expected CPU numbers"),
        ("12", "no CPU 12; it may use 0-11"),
        ("10-14", "no CPU 12-14; it may use 0-11"),
        ("3-1", "no CPU 3-1"),
    ],
)
def test_cpus_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    with pytest.raises(UsageError, match=words):
        host.parse_cpus(text)


def test_pinning_holds_for_every_thread_that_an_engine_starts() -> None:
    pytest.importorskip("openvino")
    script = f"""
import os, threading
from pathlib import Path
started = threading.Event()
threading.Thread(target=started.wait, daemon=True).start()
from mvde.bench.host import pin
pin([{HERE[0]}])
from mvde.bench import peaks
peaks._SIZES, peaks._SECONDS_PER_SIZE = (64,), 0.01
assert peaks.product_speed("fp32").best_flops_per_s > 0
tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
print(len(tasks), {{cpu for task in tasks for cpu in os.sched_getaffinity(task)}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    num_threads, cpus = done.stdout.strip().split(" ", 1)
    assert int(num_threads) >= 2
    assert cpus == f"{{{HERE[0]}}}"


def test_the_machine_is_described_in_json_types() -> None:
    import json

    found = host.describe_machine()
    assert json.loads(json.dumps(found)) == found
    assert found["num_cpus"] == len(HERE)
