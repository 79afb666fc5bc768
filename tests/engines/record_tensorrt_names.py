"""Write ``tensorrt_names.json``: names in NVIDIA's Python bindings of several versions, by class.

    python tests/engines/record_tensorrt_names.py WHEEL.whl...

The wheels are ``tensorrt-cu12-bindings`` (``pip download --no-deps``), one megabyte each without the two-gigabyte
libraries. The bindings call nine library functions, only to create objects, so stub libraries are enough to import the
module and list its classes. Needs a C compiler, but no GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TARGET = Path(__file__).with_name("tensorrt_names.json")

STUB = """
void *createInferBuilder_INTERNAL(void) { return 0; }
void *createInferRefitter_INTERNAL(void) { return 0; }
void *createInferRuntime_INTERNAL(void) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void *createNvOnnxParser_INTERNAL(void) { return 0; }
void *getBuilderPluginRegistry(void) { return 0; }
void *getPluginRegistry(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void) { return 0; }
"""

# Prints {class: [names]} of the module at argv[1] for the classes in argv[2:].
READ = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("tensorrt", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
classes = {name: getattr(module, name) for name in sys.argv[2:] if hasattr(module, name)}
print(json.dumps({name: [key for key in dir(found) if key[0] != "_"] for name, found in classes.items()}))
"""


def names_of(wheel: Path, classes: list[str]) -> dict[str, list[str]]:
    """Public names of each class in a wheel of bindings."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        major = wheel.name.split("-")[1].split(".")[0]
        (folder / "stub.c").write_text(STUB)
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            library = f"lib{name}.so.{major}"
            subprocess.run(
                ["cc", "-shared", "-fPIC", "-o", library, "stub.c", f"-Wl,-soname,{library}"], cwd=folder, check=True
            )
        command = [sys.executable, "-c", READ, str(folder / "tensorrt_bindings" / "tensorrt.so"), *classes]
        variables = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        found: dict[str, list[str]] = json.loads(done.stdout)
        return found


def main() -> None:
    from mvde.engines.tensorrt.api import USED, USED_BY_RTX

    classes = sorted({*USED, *USED_BY_RTX})
    recorded = {wheel.name.split("-")[1]: names_of(wheel, classes) for wheel in map(Path, sys.argv[1:])}
    TARGET.write_text(json.dumps(recorded, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
