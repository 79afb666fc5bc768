"""Collect what bin/nano_gpu.py needs on a machine without a network: wheels, OpenGL loaders, textures.

    python bin/nano_gpu_kit.py --out kit                       # wheels for Python 3.12 on x86-64, by pip download
    python -m pip install --no-index --find-links kit/wheels -r kit/packages.txt   # there
    python bin/nano_gpu.py --kit kit --out runs/nano-gpu       # there

torch is left out: it is taken to be there. The loaders are libglvnd's (EGL, OpenGL and the one that both need), copied
from this machine; the driver itself comes with the GPU. Textures are made here: nothing else needs scikit-image.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PACKAGES = (
    "moderngl", "pillow", "numpy", "typer", "rich", "omegaconf", "einops", "safetensors", "accelerate", "transformers",
    "peft",
)  # fmt: skip
"""Packages that the training imports, besides torch; their dependencies are resolved without torch's."""

LOADERS = ("EGL", "OpenGL", "GLdispatch")
"""Libraries of libglvnd; libOpenGL stands for libGL, which would need X11's."""

PYTHON, PLATFORMS = "3.12", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_VENDOR = {"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib")


def main() -> int:
    """Write the kit; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to fill")
    parser.add_argument("--no-wheels", action="store_true", help="leave out the wheels, which need a network")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if not arguments.no_wheels:
        download_wheels(out / "wheels")
    (out / "packages.txt").write_text("\n".join(PACKAGES) + "\n", encoding="utf-8")
    found = copy_loaders(out / "lib")
    (out / "10_nvidia.json").write_text(json.dumps(_VENDOR) + "\n", encoding="utf-8")
    write_textures(out / "textures.npz")
    missing = [name for name in LOADERS if name not in found]
    if missing:
        print(
            f"nano_gpu_kit: error: no library of {', '.join(missing)} is here; install libglvnd (Debian: apt install "
            "libegl1 libopengl0) and run this again",
            file=sys.stderr,
        )
        return 1
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:.0f} MB")
    return 0


def download_wheels(folder: Path) -> None:
    """Download the packages' wheels and those of their dependencies, without torch and its libraries."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--python-version", PYTHON, *(word for name in PLATFORMS for word in ("--platform", name))]
    # accelerate and peft ask for torch, hundreds of megabytes that are there already: they come alone.
    with_torch = ("accelerate", "peft")
    subprocess.run([*command, *(name for name in PACKAGES if name not in with_torch), "psutil"], check=True)
    subprocess.run([*command, "--no-deps", *with_torch], check=True)


def copy_loaders(folder: Path) -> list[str]:
    """Copy libglvnd's libraries under the names that programs load; returns those found."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in LOADERS:
        file_name = find_library(name)
        path = (
            next((Path(place, file_name) for place in _LIBRARY_FOLDERS if Path(place, file_name).exists()), None)
            if file_name
            else None
        )
        if path is not None and file_name is not None:
            shutil.copy(path.resolve(), folder / file_name)
            found.append(name)
    return found


def write_textures(path: Path) -> None:
    """Write the renderer's textures."""
    from mvde.datasets.synth.texture_files import save_textures
    from mvde.datasets.synth.textures import build_textures

    save_textures(build_textures(), path)


if __name__ == "__main__":
    sys.exit(main())
