"""Caps of the instructions that libraries use, for `benchmarks/peers.py --isa`."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Isa:
    """An instruction set: what a CPU needs for it, what exceeds it, and the variables that cap libraries to it.

    The variables are read by oneDNN (OpenVINO, PyTorch), PyTorch's own kernels, MKL and libmvde.
    """

    needs: frozenset[str]
    beyond: frozenset[str]
    variables: dict[str, str]


_AMX = frozenset({"amx_int8", "amx_bf16"})
_AVX2 = frozenset({"avx2", "fma"})

ISAS = {
    "amx": Isa(
        _AMX,
        frozenset({"amx_fp16"}),
        {
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX",
            "ATEN_CPU_CAPABILITY": "avx512",
            "MKL_ENABLE_INSTRUCTIONS": "AVX512_E4",
        },
    ),
    "avx512": Isa(
        frozenset({"avx512f", "avx512bw", "avx512vl"}),
        _AMX,
        {
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16",  # with VNNI, bf16 and fp16 where the CPU has them
            "ATEN_CPU_CAPABILITY": "avx512",
            "MKL_ENABLE_INSTRUCTIONS": "AVX512_E3",
        },
    ),
    "avx2": Isa(
        _AVX2,
        frozenset({"avx512f", "avx_vnni"}),
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    ),
    "avx": Isa(
        frozenset({"avx"}),
        _AVX2,
        {
            "ONEDNN_MAX_CPU_ISA": "AVX",
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_ENABLE_INSTRUCTIONS": "AVX",
            "MVDE_KERNEL": "scalar",  # libmvde has no kernel between this and AVX2
        },
    ),
}
"""Instruction sets by name; each includes those below it.

There is none below AVX: with oneDNN capped to SSE41, OpenVINO 2026.4 cannot compile a layer normalisation or a resizing
("bad combination"). Under "avx" its normalisation, resizing and half of its linear layers (MLAS) still use AVX2.
"""

UNCAPPED = ("ONNX Runtime", "torch.compile", "onnxruntime:")
"""Contenders whose kernels no variable caps: left out where the CPU has more than the instruction set."""


def missing(isa: str, features: Collection[str]) -> list[str]:
    """Features of the instruction set that a CPU with ``features`` lacks."""
    return sorted(ISAS[isa].needs - set(features))


def left_out(isa: str, features: Collection[str]) -> tuple[str, ...]:
    """Parts of the names of contenders that a CPU with ``features`` would run with more than the instruction set."""
    return UNCAPPED if ISAS[isa].beyond & set(features) else ()


def restart_capped(isa: str) -> None:
    """Restart this script with the instructions capped, unless they are: the libraries read the variables once."""
    wanted = ISAS[isa].variables
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
