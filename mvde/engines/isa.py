"""Instructions that oneDNN, and with it OpenVINO, uses on this machine: those of the CPU below the cap a user sets.

oneDNN reads ``ONEDNN_MAX_CPU_ISA`` (or ``DNNL_MAX_CPU_ISA``) once per process. OpenVINO's answers about the CPU do not
heed it: a capped library offers bf16 and then fails with "Supported primitive descriptors list is empty".
"""

from __future__ import annotations

import os
from collections.abc import Collection

from mvde.engines.machine import cpu_features
from mvde.precision import Precision

VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables of oneDNN in the order in which it reads them."""

_AVX2 = frozenset({"sse4_2", "avx", "avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl"}
_VNNI = _AVX512 | {"avx512_vnni"}
_BF16 = _VNNI | {"avx512_bf16"}
_FP16 = _BF16 | {"avx512_fp16", "avx_vnni"}
_AMX = _FP16 | {"amx_tile", "amx_int8", "amx_bf16"}

# Values of the variable: https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
_CAPS = {
    "SSE41": frozenset({"sse4_2"}),
    "AVX": frozenset({"sse4_2", "avx"}),
    "AVX2": _AVX2,
    "AVX2_VNNI": _AVX2 | {"avx_vnni"},
    "AVX2_VNNI_2": _AVX2 | {"avx_vnni"},
    "AVX512_CORE": _AVX512,
    "AVX512_CORE_VNNI": _VNNI,
    "AVX512_CORE_BF16": _BF16,
    "AVX512_CORE_FP16": _FP16,
    "AVX10_1_512": _FP16,
    "AVX512_CORE_AMX": _AMX,
    "AVX10_1_512_AMX": _AMX,
}
"""Features left by each cap. Others (``ALL``, the newest, misspelt ones) leave all, as in oneDNN."""

_WIDE_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""Features whose 8-bit products are summed in 32 bits."""


def cap() -> str:
    """The user's cap as ``VARIABLE=VALUE``; empty without one."""
    found = ((name, os.environ.get(name, "").strip()) for name in VARIABLES)
    return next((f"{name}={value}" for name, value in found if value), "")


def onednn_features() -> tuple[str, ...]:
    """Features of this CPU that oneDNN uses, in the order of :data:`mvde.engines.machine.FEATURES`."""
    allowed = _CAPS.get(cap().rpartition("=")[2].upper())
    return tuple(feature for feature in cpu_features() if allowed is None or feature in allowed)


def saturates(features: Collection[str]) -> bool:
    """Whether oneDNN's 8-bit products saturate on an x86 CPU with these features.

    Before VNNI it multiplies with ``vpmaddubsw``, which adds two products of an unsigned and a signed byte in
    16 bits: 255 · 127 · 2 does not fit, 255 · 63 · 2 does.
    """
    return "sse4_2" in features and not _WIDE_PRODUCTS & set(features)


def narrow_note(precision: Precision, features: Collection[str]) -> str:
    """What to say of int8 engines with these features where products saturate; empty otherwise."""
    if precision is not Precision.INT8 or not saturates(features):
        return ""
    why = "this CPU has no VNNI" if saturates(cpu_features()) else f"{cap()} switches VNNI off"
    return f" with weights of {weight_bits(features)} bits: {why}, and products of 8 bits saturate"


def weight_bits(features: Collection[str]) -> int:
    """Bits of an int8 graph's weights whose products are exact with these features: 7 where they saturate, else 8."""
    return 7 if saturates(features) else 8
