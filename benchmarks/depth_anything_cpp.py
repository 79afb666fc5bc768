"""depth-anything.cpp, a port of Depth Anything to ggml, called through its C API.

https://github.com/mudler/depth-anything.cpp. Build its shared library with `-DDA_SHARED=ON`. Its Winograd
convolutions are compiled for AVX-512 whatever the CPU: on others add `-DDA_HAS_AVX512F=OFF`, and
`-DCMAKE_CXX_FLAGS=-march=native` (or the instructions of a cap) so that they are vectorised all the same.

With `vit.interpolate_offset` 0 in the GGUF, position embeddings are resized as transformers resizes them; the offset
of 0.1 that its converter writes is that of the authors' code.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

BEYOND = {"avx2": ("avx512", "avx_vnni"), "avx512": ("amx_int8",)}
"""Extensions, as ggml names them, that exceed a cap of `benchmarks/peers.py`."""


@contextmanager
def open_network(
    library: Path, gguf: Path, num_threads: int, isa: str | None = None
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Function from a photograph (H, W, 3), uint8, to the map (1, h, w) of the model in ``gguf``, on the CPU.

    The library takes paths of image files only: a call writes the photograph as PPM to a file in memory, which the
    library reads, resizes and normalises itself.
    """
    os.environ["DA_DEVICE"] = "cpu"  # read when a model is loaded
    api = c_api(library)
    beyond = [name for name in BEYOND.get(isa or "", ()) if getattr(api, f"ggml_cpu_has_{name}")()]
    if beyond:
        raise ValueError(f"{library} is built for more than {isa}: {', '.join(beyond)}")
    context = api.da_capi_load(os.fsencode(gguf), num_threads)
    if not context:
        raise ValueError(f"depth-anything.cpp cannot load {gguf}")
    descriptor = os.memfd_create("photograph")
    path = f"/proc/self/fd/{descriptor}"

    def infer(image: np.ndarray) -> np.ndarray:
        write_ppm(path, image)
        height, width = ctypes.c_int(), ctypes.c_int()
        pixels = api.da_capi_depth_path(context, path.encode(), ctypes.byref(height), ctypes.byref(width))
        if not pixels:
            raise RuntimeError(f"depth-anything.cpp: {api.da_capi_last_error(context).decode()}")
        try:
            return np.ctypeslib.as_array(pixels, (1, height.value, width.value)).copy()
        finally:
            api.da_capi_free_floats(pixels)

    try:
        yield infer
    finally:
        os.close(descriptor)
        api.da_capi_free(context)


def c_api(library: Path) -> ctypes.CDLL:
    """The library with the types of the functions that are used here."""
    api = ctypes.CDLL(str(library.resolve()))
    floats, number = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int)
    signatures = {
        "da_capi_load": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]),
        "da_capi_depth_path": (floats, [ctypes.c_void_p, ctypes.c_char_p, number, number]),
        "da_capi_last_error": (ctypes.c_char_p, [ctypes.c_void_p]),
        "da_capi_free_floats": (None, [floats]),
        "da_capi_free": (None, [ctypes.c_void_p]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(api, name)
        function.restype, function.argtypes = result, arguments
    return api


def write_ppm(path: str, image: np.ndarray) -> None:
    """Overwrite the start of a file with a photograph; what follows an image in a PPM is ignored."""
    height, width, _ = image.shape
    with open(path, "r+b", buffering=0) as stream:  # noqa: PTH123 - a Path would be made in each call
        stream.write(b"P6\n%d %d\n255\n" % (width, height))
        stream.write(np.ascontiguousarray(image))
