"""Configuration of TensorRT builds: version differences, defaults for deployment, caches and refusals.

The library is replaced by a recorder with the real names (checked by ``test_tensorrt_api.py``).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mvde.cuda.gpu import Gpu
from mvde.engines.tensorrt import checks, plan_build
from mvde.engines.tensorrt.api import LIBRARIES, Api, load_api
from mvde.engines.tensorrt.choices import SETTINGS, TensorRtOptions
from mvde.engines.tensorrt.parse import check_opset
from mvde.errors import BackendError, IncompatibleEngineError, MissingDependencyError, UsageError
from mvde.precision import Precision
from mvde.records import CudaRecord, EngineRecord, NetworkRecord

ADA = Gpu("NVIDIA L4", "8.9", "12.6", 24 << 30, False)
ORIN = Gpu("Orin", "8.7", "12.6", 8 << 30, True)


class Recorder:
    """Fake of the library's builder, network and configuration that records what is set."""

    def __init__(self, plan: bytes | None = b"plan") -> None:
        self.set: dict[str, Any] = {}
        self.flags: set[str] = {"TF32"}
        self.plan = plan
        self.caches: list[bytes] = []
        self.attached: bytes | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"set", "flags", "plan", "caches", "attached"}:
            super().__setattr__(name, value)
        else:
            self.set[name] = value

    def create_builder_config(self) -> Recorder:
        return self

    def create_network(self, flags: int) -> int:
        return flags

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size_bytes: int) -> None:
        self.set[pool] = size_bytes

    def set_compute_capability(self, capability: str, index: int) -> bool:
        self.set[f"capability {index}"] = capability
        return True

    def create_timing_cache(self, content: bytes) -> Any:
        self.caches.append(content)
        return None if content == b"damaged" else SimpleNamespace(serialize=lambda: b"timed", content=content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch  # timings from another GPU would select slow kernels
        self.attached = cache.content
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"timed")

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        monitor = self.set["progress_monitor"]
        monitor.phase_start("Building engine", None, 2)
        for step in range(2):
            if not monitor.step_complete("Building engine", step):
                return None
        monitor.phase_finish("Building engine")
        return self.plan


class Logger:
    Severity = SimpleNamespace(WARNING=2)


def api_of(backend: str, version: str, **extra: Any) -> Api:
    module = SimpleNamespace(
        __version__=version,
        ILogger=Logger,
        IProgressMonitor=object,
        Builder=lambda logger: Recorder(),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        BuilderFlag=SimpleNamespace(
            TF32="TF32",
            VERSION_COMPATIBLE="VERSION_COMPATIBLE",
            DISABLE_TIMING_CACHE="DISABLE_TIMING_CACHE",
            REQUIRE_USER_ALLOCATION="REQUIRE_USER_ALLOCATION",
        ),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        HardwareCompatibilityLevel=SimpleNamespace(NONE="none", AMPERE_PLUS="ampere"),
        ComputeCapability=SimpleNamespace(SM89="sm89", SM120="sm120", CURRENT="now", NONE="none"),
        **extra,
    )
    return Api(LIBRARIES[backend], module)


TRT = api_of("tensorrt", "10.16.1")
RTX = api_of("tensorrt-rtx", "1.7.1")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def built(api: Api, gpu: Gpu | None = ADA, capabilities: tuple[str, ...] = (), **options: Any) -> Recorder:
    recorder = Recorder()
    plan = plan_build.build_plan(api, recorder, object(), TensorRtOptions(**options), gpu, capabilities)
    assert plan == b"plan"
    return recorder


@pytest.mark.parametrize(
    ("backend", "version", "flags"),
    [("tensorrt", "10.3.0", 2), ("tensorrt", "10.16.1", 2), ("tensorrt", "11.4.0", 0), ("tensorrt-rtx", "1.7.1", 0)],
)
def test_networks_are_strongly_typed_in_every_version(backend: str, version: str, flags: int) -> None:
    api = api_of(backend, version)
    assert api.empty_network(api.builder()) == flags


def test_an_fp32_engine_does_not_compute_in_tf32() -> None:
    assert "TF32" not in built(TRT).flags
    assert "TF32" not in built(RTX, None, ("8.9",)).flags


def test_a_jetson_gets_no_auxiliary_streams_and_a_bounded_workspace() -> None:
    small = built(TRT, ORIN).set
    assert (small["max_aux_streams"], small["workspace"]) == (0, 2 << 30)
    large = built(TRT, ADA).set
    assert "max_aux_streams" not in large
    assert "workspace" not in large
    chosen = built(TRT, ORIN, num_aux_streams=2, workspace_mib=64, optimization_level=5).set
    assert (chosen["max_aux_streams"], chosen["workspace"], chosen["builder_optimization_level"]) == (2, 64 << 20, 5)


def test_the_manifest_states_the_options_as_they_took_effect() -> None:
    flags = plan_build.chosen_flags(TensorRtOptions(version_compatible=True), ORIN)
    assert flags == {
        "tf32": False,
        "optimization_level": "default",
        "workspace_mib": 2048,
        "num_aux_streams": 0,
        "version_compatible": True,
        "hardware": "none",
    }


def test_compatible_plans_are_asked_for() -> None:
    recorder = built(TRT, version_compatible=True, hardware="ampere-plus")
    assert "VERSION_COMPATIBLE" in recorder.flags
    assert recorder.set["hardware_compatibility_level"] == "ampere"
    with pytest.raises(BackendError, match=r"10\.16\.1 has no hardware compatibility 'same-compute-capability'"):
        built(TRT, hardware="same-compute-capability")  # missing in TensorRT 10.3, as here


def test_tensorrt_rtx_builds_for_the_capabilities_named_and_can_be_captured() -> None:
    recorder = built(RTX, None, ("8.9", "12.0"))
    assert recorder.set["num_compute_capabilities"] == 2
    assert (recorder.set["capability 0"], recorder.set["capability 1"]) == ("sm89", "sm120")
    assert "REQUIRE_USER_ALLOCATION" in recorder.flags
    assert RTX.capabilities() == ["8.9", "12.0"]


def test_the_timing_cache_is_kept_per_gpu_driver_and_version(cache: Path) -> None:
    assert built(TRT).attached == b""
    assert built(TRT).attached == b"timed"
    others = [
        plan_build.timing_cache_path(TRT, dataclasses.replace(ADA, name="NVIDIA RTX 4090")),
        plan_build.timing_cache_path(TRT, dataclasses.replace(ADA, driver_cuda="13.0")),
        plan_build.timing_cache_path(api_of("tensorrt", "10.16.2"), ADA),
    ]
    mine = plan_build.timing_cache_path(TRT, ADA)
    assert mine.is_relative_to(cache)
    assert len({mine, *others}) == 4
    mine.write_bytes(b"damaged")
    assert built(TRT).attached == b""
    assert mine.read_bytes() == b"timed"


def test_without_the_timing_cache_none_is_read_or_written(cache: Path) -> None:
    recorder = built(TRT, timing_cache=False)
    assert "DISABLE_TIMING_CACHE" in recorder.flags
    assert recorder.caches == []
    assert list(cache.rglob("*.cache")) == []


def test_progress_is_told_step_by_step() -> None:
    told: list[tuple[str, int, int]] = []
    plan_build.build_plan(
        TRT,
        Recorder(),
        object(),
        TensorRtOptions(),
        ADA,
        (),
        lambda phase, done, total: told.append((phase, done, total)),
    )
    assert told == [("Building engine", done, 2) for done in (0, 1, 2, 2)]


def test_a_build_that_fails_gives_the_librarys_reason() -> None:
    api = api_of("tensorrt", "10.16.1")
    api.messages.append("Could not find any implementation for node MatMul_7")
    with pytest.raises(BackendError, match="could not build the engine: Could not find any implementation for node"):
        plan_build.build_plan(api, Recorder(plan=None), object(), TensorRtOptions(), ADA, ())


def test_a_library_that_cannot_start_says_why() -> None:
    def refuse(logger: Any) -> Any:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    api = api_of("tensorrt", "10.16.1", Runtime=refuse)
    api.messages.append("CUDA initialization failure with error: 35")
    with pytest.raises(BackendError, match="cannot run here: CUDA initialization failure with error: 35"):
        api.runtime()


@pytest.mark.parametrize(
    ("version", "known"), [("10.3.0", True), ("11.9.0", True), ("10.2.0", False), ("12.0.0", False)]
)
def test_versions_that_mvde_was_not_written_for_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, known: bool
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", api_of("tensorrt", version).module)
    if known:
        assert load_api("tensorrt").version == version
        return
    with pytest.raises(BackendError, match=rf"TensorRT {version} is installed, but mvde supports 10\.3 to 11\.x"):
        load_api("tensorrt")


def test_what_a_packager_appended_to_a_version_is_left_out() -> None:
    assert api_of("tensorrt", "10.7.0.post1").version == "10.7.0"


def test_a_library_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mvde\[tensorrt\]'"):
        load_api("tensorrt")


@pytest.mark.parametrize(
    ("api", "opset", "fits"),
    [
        (api_of("tensorrt", "10.3.0"), 23, False),
        (api_of("tensorrt", "10.13.3"), 23, False),
        (api_of("tensorrt", "10.3.0"), 20, True),
        (api_of("tensorrt", "10.14.1"), 23, True),
        (RTX, 23, True),
    ],
)
def test_a_graph_with_attention_needs_a_parser_that_knows_it(api: Api, opset: int, fits: bool) -> None:
    source = SimpleNamespace(kind="mvde", name="base")
    manifest: Any = SimpleNamespace(opset=opset, name="base", resolution=(896, 896), source=source)
    if fits:
        check_opset(api, manifest)
        return
    with pytest.raises(
        BackendError, match=r"opset 23, whose Attention .*mvde export --opset 20 --name base --res 896x896"
    ):
        check_opset(api, manifest)
    source.kind, source.name = "onnx", "theirs.onnx"
    with pytest.raises(BackendError, match=r"mvde import theirs\.onnx --opset 20 --name base --res 896x896"):
        check_opset(api, manifest)


def record(**changes: Any) -> EngineRecord:
    made = EngineRecord(
        id="tensorrt:fp16",
        backend="tensorrt",
        precision=Precision.FP16,
        executed_precision="fp16",
        device="NVIDIA L4",
        library_version="10.16.1",
        cpu_features=(),
        options={},
        onnx_sha256="0" * 64,
        cuda=CudaRecord("12", "12.6", "NVIDIA L4", ("8.9",), 1.0, NetworkRecord(1, {}, {}, 0, 0, 0)),
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "gpu", "reason"),
    [
        ({}, ADA, None),
        ({}, ORIN, "built for compute capability 8.9, but Orin has 8.7"),
        ({}, None, "it needs an NVIDIA GPU, but"),
        ({"library_version": "10.3.0"}, ADA, "it was built with TensorRT 10.3.0, but 10.16.1 is installed"),
        ({"library_version": "10.3.0", "options": {"version_compatible": True}}, ADA, None),
        ({"library_version": "10.17.0", "options": {"version_compatible": True}}, ADA, "but 10.16.1 is installed"),
        ({"library_version": "9.3.0", "options": {"version_compatible": True}}, ADA, "but 10.16.1 is installed"),
        ({"options": {"hardware": "ampere-plus"}}, ORIN, None),
        ({"options": {"hardware": "ampere-plus"}}, dataclasses.replace(ADA, compute_capability="7.5"), "has 7.5"),
    ],
)
def test_an_engine_runs_where_its_version_and_gpu_are(
    changes: dict[str, Any], gpu: Gpu | None, reason: str | None
) -> None:
    told = checks.why_not_here(TRT, record(**changes), gpu)
    assert (told is None) if reason is None else (told is not None and reason in told)


def test_an_engine_that_cannot_run_here_is_refused_with_the_command_that_rebuilds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checks, "find_gpu", lambda: ORIN)
    with pytest.raises(
        IncompatibleEngineError, match=r"Orin has 8\.7; build it again: mvde build --engine tensorrt:fp16"
    ):
        checks.check_here(TRT, record(), tmp_path)


def test_a_driver_that_is_too_old_is_told_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "cuda_major", lambda backend: "13")
    assert "serves CUDA 12.6" in (checks.old_driver("tensorrt", ADA) or "")
    assert "install driver R580 or later" in (checks.old_driver("tensorrt", ADA) or "")
    assert checks.old_driver("tensorrt", dataclasses.replace(ADA, driver_cuda="13.1")) is None
    monkeypatch.setattr(checks, "find_gpu", lambda: ADA)
    with pytest.raises(BackendError, match="R580"):
        checks.require_device("tensorrt")


def test_the_cuda_of_a_wheel_is_read_from_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "tensorrt-cu12":
            return "10.3.0"
        raise checks.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(checks.metadata, "version", version)
    assert checks.cuda_major("tensorrt") == "12"
    assert checks.cuda_major("tensorrt-rtx") is None  # unknown for a Debian package


def test_tensorrt_does_not_build_for_other_gpus() -> None:
    def capabilities(api: Api, gpu: Gpu, *named: str) -> tuple[str, ...]:
        options = TensorRtOptions(compute_capabilities=named)
        return checks.chosen_capabilities(api, options, gpu, without_device=False)

    with pytest.raises(UsageError, match="builds for the GPU it runs on"):
        capabilities(TRT, ADA, "8.9")
    with pytest.raises(BackendError, match="cannot build without one"):
        checks.check_device(TRT, without_device=True)
    assert capabilities(TRT, ADA) == capabilities(RTX, ORIN, "8.9") == capabilities(RTX, ADA) == ("8.9",)
    with pytest.raises(BackendError, match=r"does not build for compute capability 8\.7"):
        capabilities(RTX, ORIN)


@pytest.mark.parametrize(
    ("precision", "capabilities", "fits"),
    [
        (Precision.FP8, ("8.9",), True),
        (Precision.FP8, ("8.7",), False),
        (Precision.BF16, ("7.5", "8.0"), False),
        (Precision.FP16, ("7.5",), True),
    ],
)
def test_a_precision_needs_a_gpu_with_its_arithmetic(
    precision: Precision, capabilities: tuple[str, ...], fits: bool
) -> None:
    if fits:
        checks.check_arithmetic(precision, capabilities)
        return
    with pytest.raises(BackendError, match=f"{precision} needs a GPU of compute capability"):
        checks.check_arithmetic(precision, capabilities)


def test_every_setting_of_the_command_line_reaches_its_option() -> None:
    given = {
        "optimization_level": "5",
        "workspace_mib": "64",
        "aux_streams": "2",
        "version_compatible": "yes",
        "hardware": "ampere-plus",
        "timing_cache": "no",
        "compute_capability": "8.9, 12.0,8.9",
    }
    assert {setting.name for setting in SETTINGS} == set(given)
    assert TensorRtOptions.parse("tensorrt-rtx", given) == TensorRtOptions(
        5, 64, 2, True, "ampere-plus", ("8.9", "12.0"), timing_cache=False
    )
    assert TensorRtOptions.parse("tensorrt", {}) == TensorRtOptions()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("optimization_level", "6", "--set optimization_level=6: expected 0 to 5"),
        ("optimization_level", "fast", "--set optimization_level=fast: expected a whole number, 0 to 5"),
        ("workspace_mib", "0", "expected at least 1"),
        ("aux_streams", "-1", "expected at least 0"),
        ("version_compatible", "true", "expected yes or no"),
        ("hardware", "ampere", "expected none or ampere-plus or same-compute-capability"),
        ("compute_capability", "8.9,ada", "'ada' is not understood; give a number such as 8.9"),
        ("workspace", "64", "--set workspace=64 is not for tensorrt, which takes .*workspace_mib .maximum scratch"),
    ],
)
def test_a_setting_that_is_not_understood_says_what_is(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TensorRtOptions.parse("tensorrt", {name: text})
