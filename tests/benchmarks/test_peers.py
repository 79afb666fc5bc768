"""Instruction sets of `benchmarks/peers.py`: what a CPU must have, what is capped, and who is left out."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mvde.engines import isa
from mvde.engines.machine import FEATURES, cpu_features

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SANDY_BRIDGE = ("sse4_2", "avx")
HASWELL = (*SANDY_BRIDGE, "avx2", "fma", "f16c")
ZEN4 = (*HASWELL, "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16")
SAPPHIRE = (*ZEN4, "avx_vnni", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")


@pytest.fixture
def caps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("isa_caps")


@pytest.mark.parametrize(
    ("features", "works", "complete"),
    [
        (SANDY_BRIDGE, {"avx"}, {"avx"}),
        (HASWELL, {"avx", "avx2"}, {"avx2"}),
        (ZEN4, {"avx", "avx2", "avx512"}, {"avx512"}),
        (SAPPHIRE, {"avx", "avx2", "avx512", "amx"}, {"amx"}),
    ],
)
def test_a_cpu_runs_the_sets_that_it_has_and_everybody_only_in_its_own(
    caps: Any, features: tuple[str, ...], works: set[str], complete: set[str]
) -> None:
    assert {name for name in caps.ISAS if not caps.missing(name, features)} == works
    assert {name for name in works if not caps.left_out(name, features)} == complete


def test_caps_leave_what_a_set_needs_and_switch_off_what_exceeds_it(caps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "cpu_features", lambda: FEATURES)
    for one in caps.ISAS.values():
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", one.variables["ONEDNN_MAX_CPU_ISA"])
        assert one.needs <= set(isa.onednn_features())
        assert not one.beyond & set(isa.onednn_features())


def test_a_set_above_the_machine_is_refused() -> None:
    if "amx_int8" in cpu_features():
        pytest.skip("this CPU has AMX")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "peers.py"), "--isa", "amx"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "has no amx_bf16, amx_int8; name what it has, or leave it out" in done.stderr
