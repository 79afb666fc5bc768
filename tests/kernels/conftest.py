"""CUDA sources built for the CPU with the host shim; device memory is emulated with guard pages."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mvde.cuda.postprocess import DeviceMap, PostprocessOptions, postprocess_params
from mvde.cuda.preprocess import DeviceFrame, PixelFormat, plan_preprocess, preprocess_params, resize_tables
from mvde.stats import STATS

KERNELS = Path(__file__).resolve().parents[2] / "cpp" / "kernels"
HOST_SHIM = Path(__file__).resolve().parent / "host_shim"
NUMPY_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": "bfloat16"}
RAW_TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}


def build_shim(name, folder):
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: the kernels cannot be built for the CPU")
    library = folder / f"lib{name}.so"
    command = [compiler, "-std=c++17", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-shared"]
    # Undefined behaviour and misaligned accesses trap and the shim reports them; FMA contraction would hide roundings.
    command += ["-fPIC", "-ffp-contract=off", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    command += [f"-I{KERNELS}", "-o", str(library), str(HOST_SHIM / f"run_{name}.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


@pytest.fixture(autouse=True)
def denormals():
    """Enable denormals, which libraries used before may have flushed to zero (MXCSR)."""
    ctypes.CDLL(None).fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV in glibc


class GuardedMemory:
    """Buffer that ends at an inaccessible guard page, with another guard page before it."""

    def __init__(self, num_bytes, fill=0xA5):
        page = mmap.PAGESIZE
        room = -(-max(num_bytes, 1) // page) * page
        self._map = mmap.mmap(-1, room + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None, use_errno=True)
        for guard in (start, start + page + room):
            if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        self.address = start + page + room - num_bytes
        self.bytes = np.frombuffer(self._map, np.uint8, num_bytes, page + room - num_bytes)
        self.bytes[:] = fill


def to_raw_bits(values, dtype):
    """Values rounded to ``dtype``: their bits in memory, and as float32."""
    values = np.asarray(values, np.float32)
    if dtype == "bfloat16":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        rounded = values.astype(ml_dtypes.bfloat16)
        return rounded.view(np.uint16), rounded.astype(np.float32)
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    return rounded, rounded.astype(np.float32)


def executed_barriers(library):
    """Indices of the ``__syncthreads()`` executed in the library's last launch."""
    bits = library.shim_executed_barriers()
    return [number for number in range(64) if bits >> number & 1]


class PostprocessShim:
    """``postprocess.cu`` on the CPU."""

    def __init__(self, library):
        self.library = library
        library.shim_postprocess.restype = ctypes.c_char_p
        library.shim_sizeof_params.restype = ctypes.c_size_t
        library.shim_executed_barriers.restype = ctypes.c_uint64

    def executed_barriers(self):
        return executed_barriers(self.library)

    def error_of(self, params, dtype="float32", order=0, dropped_barrier=-1):
        """Launch the kernel; returns the error message, "" on success."""
        arguments = (RAW_TYPES[dtype], ctypes.byref(params), order, dropped_barrier)
        return self.library.shim_postprocess(*arguments).decode()

    def run(
        self,
        raw,
        patch_size=16,
        stats=STATS,
        options=None,
        *,
        dtype="float32",
        depth_format=None,
        row_padding=0,
        image_padding=0,
        shift_elements=0,
        order=0,
        dropped_barrier=-1,
    ):
        """(depth or None, statistics or None) of raw values (B, H, W), stored with the given padding."""
        batch, height, width = raw.shape
        bits, _ = to_raw_bits(raw, dtype)
        row_stride = width + row_padding
        batch_stride = height * row_stride + image_padding
        num_elements = (batch - 1) * batch_stride + (height - 1) * row_stride + width
        # `shift_elements` extra elements at the end break the 16-byte alignment of the start.
        source = GuardedMemory((num_elements + shift_elements) * bits.itemsize)
        flat = source.bytes.view(bits.dtype)
        for image in range(batch):
            for y in range(height):
                start = image * batch_stride + y * row_stride
                flat[start : start + width] = bits[image, y]
        num_patches = (height // patch_size) * (width // patch_size)
        target = GuardedMemory(batch * num_patches * len(stats) * 4)
        out_dtype = np.dtype(np.float32 if depth_format is None or depth_format.name == "METRES" else np.uint16)
        depth = GuardedMemory(batch * height * width * out_dtype.itemsize)
        params = postprocess_params(
            DeviceMap(source.address, batch_stride, row_stride),
            raw.shape,
            options or PostprocessOptions(),
            depth=DeviceMap(depth.address) if depth_format is not None else None,
            **({"depth_format": depth_format} if depth_format is not None else {}),
            stats_address=target.address if stats else None,
            patch_size=patch_size,
            **({"stats": stats} if stats else {}),
        )
        error = self.error_of(params, dtype, order, dropped_barrier)
        if error:
            raise RuntimeError(error)
        return (
            depth.bytes.view(out_dtype).reshape(raw.shape).copy() if depth_format is not None else None,
            target.bytes.view(np.float32).reshape(batch, num_patches, len(stats)).copy() if stats else None,
        )


@pytest.fixture(scope="session")
def guarded_memory():
    return GuardedMemory


@pytest.fixture(scope="session")
def postprocess_shim(tmp_path_factory):
    return PostprocessShim(build_shim("postprocess", tmp_path_factory.mktemp("shim")))


class PreprocessShim:
    """``preprocess.cu`` on the CPU."""

    def __init__(self, library):
        self.library = library
        library.shim_preprocess.restype = ctypes.c_char_p
        library.shim_sizeof_params.restype = ctypes.c_size_t
        library.shim_executed_barriers.restype = ctypes.c_uint64

    def executed_barriers(self):
        return executed_barriers(self.library)

    def run(
        self,
        pixels,
        placement,
        pixel_format=PixelFormat.RGB,
        *,
        chroma=None,
        padding=0,
        order=0,
        dropped_barrier=-1,
        **options,
    ):
        """(H, W, 3) uint8 of a frame whose rows are padded by ``padding`` bytes."""
        source, pitch = pitch_linear(pixels, padding)
        uv, uv_pitch = pitch_linear(chroma, padding) if chroma is not None else (None, 0)
        columns, rows = (guarded(table.packed()) for table in resize_tables(placement))
        height, width = placement.target_size
        target = GuardedMemory(height * width * 3)
        params = preprocess_params(
            DeviceFrame(source.address, pitch, pixel_format, uv.address if uv else 0, uv_pitch),
            placement,
            target.address,
            columns.address,
            rows.address,
            **options,
        )
        plan = plan_preprocess(params)
        error = self.library.shim_preprocess(ctypes.byref(params), *plan.grid[:2], order, dropped_barrier).decode()
        if error:
            raise RuntimeError(error)
        return target.bytes.reshape(height, width, 3).copy()


def guarded(array):
    memory = GuardedMemory(array.nbytes)
    memory.bytes[:] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    return memory


def pitch_linear(pixels, padding):
    """Rows padded by ``padding`` bytes, except the last; and the pitch in bytes."""
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77).reshape(-1)
    return guarded(padded[: padded.size - padding]), rows.shape[1] + padding


@pytest.fixture(scope="session")
def preprocess_shim(tmp_path_factory):
    return PreprocessShim(build_shim("preprocess", tmp_path_factory.mktemp("shim")))
