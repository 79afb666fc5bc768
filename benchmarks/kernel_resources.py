"""Registers, shared memory, spills and occupancy of the CUDA kernels on every architecture; needs no GPU.

    python benchmarks/kernel_resources.py [--json FILE]

Compiles with NVRTC and parses the ptxas report. Occupancy is limited by the registers, shared memory and threads of the
launch for 896 x 896 (16-pixel patches in the warp kernel, 64-pixel patches in the block kernel).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

from mvde.cuda.compiler import ARCHITECTURES, SOURCES, KernelResources, compile_kernels, kernel_resources, nvrtc_version
from mvde.cuda.postprocess import DeviceMap, LaunchPlan, PostprocessOptions, plan_postprocess, postprocess_params


class Multiprocessor(NamedTuple):
    """Limits of one multiprocessor (CUDA C++ Programming Guide, compute capabilities); 64 Ki registers on all."""

    num_warps: int
    num_blocks: int
    shared_bytes: int


MULTIPROCESSORS = {
    "sm_75": Multiprocessor(32, 16, 64 * 1024),
    "sm_80": Multiprocessor(64, 32, 164 * 1024),
    "sm_86": Multiprocessor(48, 16, 100 * 1024),
    "sm_87": Multiprocessor(48, 16, 164 * 1024),
    "sm_89": Multiprocessor(48, 24, 100 * 1024),
    "sm_90": Multiprocessor(64, 32, 228 * 1024),
    "sm_100": Multiprocessor(64, 32, 228 * 1024),
    "sm_120": Multiprocessor(48, 24, 100 * 1024),
}
REGISTERS = 65536
SYSTEM_SHARED_BYTES = 1024  # reserved per block from sm_80 on


def occupancy(architecture: str, kernel: KernelResources, threads: int, dynamic_shared_bytes: int) -> float:
    """Occupancy: resident warps over the multiprocessor's maximum, 0 to 1."""
    limits = MULTIPROCESSORS[architecture]
    warps = threads // 32
    registers_per_warp = -(-kernel.num_registers * 32 // 256) * 256
    shared = kernel.static_shared_bytes + dynamic_shared_bytes
    shared += 0 if architecture == "sm_75" else SYSTEM_SHARED_BYTES
    blocks = min(
        limits.num_blocks,
        limits.num_warps // warps,
        REGISTERS // registers_per_warp // warps,
        limits.shared_bytes // max(shared, 1),
    )
    return blocks * warps / limits.num_warps


def launch_of(kernel: str) -> LaunchPlan:
    """Launch configuration that the occupancy is computed for."""
    if kernel == "mvde_preprocess":
        return LaunchPlan(kernel, (1, 1, 1), 256, 4096)
    side, patch = (896, 16) if "warp" in kernel else (896, 64)
    columns = {} if "convert" in kernel else {"stats_address": 16, "patch_size": patch}
    params = postprocess_params(DeviceMap(16), (1, side, side), PostprocessOptions(), depth=DeviceMap(16), **columns)
    return plan_postprocess(params, "float32")


def measure() -> list[dict[str, object]]:
    """One row per architecture and kernel."""
    rows: list[dict[str, object]] = []
    for architecture in ARCHITECTURES:
        for source in SOURCES:
            for kernel in kernel_resources(compile_kernels(source, architecture).log):
                plan = launch_of(kernel.kernel)
                share = occupancy(architecture, kernel, plan.block_threads, plan.shared_bytes)
                launch = {"block_threads": plan.block_threads, "dynamic_shared_bytes": plan.shared_bytes}
                rows.append({"architecture": architecture, **kernel._asdict(), **launch, "occupancy": round(share, 3)})
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """Print one line per row."""
    print(f"{'arch':7} {'kernel':42} {'regs':>4} {'spills':>6} {'threads':>7} {'shared B':>8} {'occupancy':>9}")
    for row in sorted(rows, key=lambda row: (str(row["kernel"]), ARCHITECTURES.index(str(row["architecture"])))):
        spills = int(str(row["spill_store_bytes"])) + int(str(row["spill_load_bytes"]))
        print(
            f"{row['architecture']:7} {row['kernel']:42} {row['num_registers']:4} {spills:6} {row['block_threads']:7} "
            f"{row['dynamic_shared_bytes']:8} {row['occupancy']:9.0%}"
        )


def main() -> None:
    """Compile the kernels, print the table and optionally write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file as JSON lines")
    arguments = parser.parse_args()
    print(f"NVRTC {'.'.join(map(str, nvrtc_version()))}")
    rows = measure()
    show(rows)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
