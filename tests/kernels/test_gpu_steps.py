"""The steps of benchmarks/gpu_acceptance.py, with the kernels' sources on the CPU in the place of a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mvde.cuda.preprocess import plan_preprocess

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def steps():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("gpu_steps", BENCHMARKS / "gpu_steps.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        import gpu_torch_steps

        module.torch_steps = gpu_torch_steps
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


class HostDevice:
    """``gpu_device.Device`` in host memory: kernels run at once, graphs when they are launched."""

    def __init__(self, postprocess, preprocess):
        self._postprocess, self._preprocess = postprocess, preprocess
        self.flaw = 0.0
        self.captured_work = []

    def put(self, array):
        array = np.array(array, order="C")
        return SimpleNamespace(address=array.ctypes.data, size_bytes=array.nbytes, array=array)

    def get(self, buffer, shape, dtype):
        found = buffer.array.view(dtype).reshape(shape).copy()
        if self.flaw and dtype == np.float32:
            found.flat[-1] += self.flaw
        return found

    def postprocess(self, params, dtype):
        assert self._postprocess.error_of(params, dtype) == ""

    def preprocess(self, params):
        grid = plan_preprocess(params).grid
        assert self._preprocess.library.shim_preprocess(ctypes.byref(params), *grid[:2], 0, -1).decode() == ""

    def copy(self, target, source):
        ctypes.memmove(target.address, source.address, source.size_bytes)

    def captured(self, work):
        return work

    def time_ms(self, work):
        work()
        return 0.5


@pytest.fixture
def device(postprocess_shim, preprocess_shim):
    return HostDevice(postprocess_shim, preprocess_shim)


@pytest.mark.slow
def test_the_steps_pass_on_right_kernels(steps, device):
    found = steps.check_statistics(device, (1, 14, 40))
    assert found["cases"] == 3 * 3 + 16
    assert found["largest_relative_difference"] < 1e-6
    assert steps.check_pictures(device, ("letterbox",))["cases"] == 3 * 3 + 2
    assert steps.check_graph(device)["launch_ms"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("step", ["check_statistics", "check_graph"])
def test_a_step_fails_on_a_wrong_number(steps, device, step):
    device.flaw = 1e-3
    with pytest.raises(AssertionError):
        getattr(steps, step)(device, *([(14,)] if step == "check_statistics" else []))


@pytest.mark.slow
def test_a_picture_that_is_off_by_one_level_fails(steps, device, monkeypatch):
    right = device.get
    monkeypatch.setattr(device, "get", lambda *arguments: right(*arguments) ^ 1)
    with pytest.raises(AssertionError):
        steps.check_pictures(device, ("stretch",))


@pytest.mark.slow
def test_bandwidth_counts_what_is_read_and_written(steps, device):
    (single, half) = steps.measure_bandwidth(device, (32,), (2,))["rows"]
    pixels, statistics = 2 * 32 * 32, 2 * 4 * 3 * 4
    assert single["kernel_gb_s"] == round((pixels * (4 + 4) + statistics) / 0.5 / 1e6, 1)
    assert (single["dtype"], half["dtype"], single["share_of_copy"]) == ("float32", "float16", 1.0)


@pytest.mark.slow
def test_a_size_that_would_not_fit_is_left_out(steps, device, monkeypatch):
    monkeypatch.setattr(steps, "_LARGEST_RUN", 32 * 32)
    assert len(steps.measure_bandwidth(device, (32,), (1, 2))["rows"]) == 2


def test_numbers_are_rounded_to_bfloat16_as_libraries_do(steps):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32) * 1e3
    bits, rounded = steps.stored(values, "bfloat16")
    np.testing.assert_array_equal(rounded, values.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(bits, values.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_the_plain_statistics_in_torch_are_the_specification(steps):
    torch = pytest.importorskip("torch")
    from mvde.stats import numpy_patch_stats

    depth = (1 + 8 * np.random.default_rng(0).random((2, 48, 80))).astype(np.float32)
    depth[np.random.default_rng(1).random(depth.shape) < 0.05] = np.nan
    got = steps.torch_steps.plain_statistics(torch.from_numpy(depth), 16).numpy()
    np.testing.assert_allclose(got, numpy_patch_stats(depth, 16, steps.torch_steps.COLUMNS), rtol=1e-4, atol=1e-5)


def test_torchs_kernels_serve_as_a_plan(steps, monkeypatch):
    """The engine of TensorRT's class with torch's kernels, on a fake GPU in host memory."""
    torch = pytest.importorskip("torch")
    from tests.engines.tensorrt_fakes import FakeDevice, FakeKernel

    cuda = FakeDevice()

    def tensor_at(address, shape, typestr):
        return torch.from_numpy(cuda.array(address, shape, np.dtype(typestr)))

    class Plan(steps.torch_steps.TorchPlan):
        def execute(self, stream):
            cuda.submit(stream, "torch", lambda: super(Plan, self).execute(stream))

    fake_cuda = SimpleNamespace(ExternalStream=lambda handle: handle, stream=lambda stream: memoryview(b""))
    monkeypatch.setattr(steps.torch_steps, "_tensor_at", tensor_at)
    monkeypatch.setattr(steps.torch_steps, "_torch", lambda: SimpleNamespace(cuda=fake_cuda))
    monkeypatch.setattr(steps.torch_steps, "TorchPlan", Plan)
    found = steps.torch_steps.check_session(SimpleNamespace(cuda=cuda, kernels=FakeKernel(cuda)))
    assert found["captured"]
    assert "launch" in cuda.log


@pytest.mark.slow
def test_every_kernel_compiles_for_hopper(steps):
    pytest.importorskip("cuda.core")
    from mvde.errors import MissingDependencyError

    try:
        found = steps.compile_all("sm_90")
    except MissingDependencyError:
        pytest.skip("NVRTC is not installed")
    assert {name for name in found["kernels"] if "preprocess" in name} == {"mvde_preprocess"}
    assert len(found["kernels"]) == 10
    assert all(kernel["spilled_bytes"] == 0 for kernel in found["kernels"].values())


BARE = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("typer", "rich", "PIL", "onnx", "onnxruntime", "openvino", "transformers", "torch",
                                  "pytest", "omegaconf", "ml_dtypes", "scipy"):
            raise ImportError(name)

sys.meta_path.insert(0, Refusing())
sys.path.insert(0, sys.argv[1])
sys.argv[:] = ["gpu_steps.py", "arrays"]
import gpu_acceptance, gpu_steps
gpu_steps.Device = object
sys.exit(gpu_steps.main())
"""


def test_a_machine_with_numpy_and_cuda_only_has_all_that_is_imported(tmp_path):
    """Without torch a step is not run, with the reason; nothing else is missing."""
    command = [sys.executable, "-c", BARE, str(BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert (done.returncode, done.stderr.strip()) == (3, "torch is not installed")
