"""Memory of an OpenVINO blob whose weights are in fp32, and in bf16: a chain of 1×1 convolutions, computed in fp32.

    python benchmarks/narrow_weights.py

The weights have bf16's digits, so that both blobs compute the same bits. Each is loaded in a process of its own from a
mapping of its file, and infers once; printed are the sizes and how far the process grew. On CPUs with bf16 `mvde build`
writes such blobs for bf16 engines; `python benchmarks/memory.py` measures those.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mvde.engines.machine import resident_bytes
from mvde.engines.openvino import narrow_weights
from mvde.engines.openvino.library import openvino_library, shared_core

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": "1"}
SIDE, NUM_LAYERS = 2048, 8
MIB = 2**20


def main() -> None:
    """Write both blobs and measure each, or measure the blob that is named."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        wide = shared_core().compile_model(chain(), "CPU", OPTIONS)
        narrowed, note = narrow_weights.compiled(shared_core(), chain(), OPTIONS, "f32")
        print(f"weights: {note}")
        for name, compiled in (("fp32", wide), ("bf16", narrowed)):
            blob = Path(folder) / f"{name}.blob"
            blob.write_bytes(compiled.export_model().getvalue())
            subprocess.run([sys.executable, __file__, str(blob)], check=True)


def chain() -> object:
    """Convolutions over 8×8 pixels."""
    openvino = openvino_library()
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    image = value = ops.parameter(openvino.Shape([1, SIDE, 8, 8]), openvino.Type.f32)
    for _ in range(NUM_LAYERS):
        halves = narrow_weights.rounded(rng.standard_normal((SIDE, SIDE, 1, 1), np.float32) / SIDE**0.5)
        weights = ops.constant((halves.astype(np.uint32) << 16).view(np.float32))
        value = ops.relu(ops.convolution(value, weights, [1, 1], [0, 0], [0, 0], [1, 1]))
    return openvino.Model([value], [image], "chain")


def measure(path: Path) -> None:
    """Load the blob, infer once, and print how far the process grew."""
    openvino, core = openvino_library(), shared_core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the library's code
    before = resident_bytes()
    tensor = openvino.Tensor(np.memmap(path, np.uint8, "c"), shared_memory=True)
    compiled = core.import_model(tensor, "CPU", OPTIONS)
    result = compiled([np.ones((1, SIDE, 8, 8), np.float32)])[0]
    grown = (resident_bytes() - before) / MIB
    bits = hashlib.sha256(result.tobytes()).hexdigest()[:8]
    print(f"{path.stem}: blob {path.stat().st_size / MIB:.0f} MiB, process +{grown:.0f} MiB, result {bits}")


if __name__ == "__main__":
    main()
