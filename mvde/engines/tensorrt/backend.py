"""Backends ``tensorrt`` and ``tensorrt-rtx``: engines for an NVIDIA GPU."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.cuda.gpu import Gpu, find_gpu
from mvde.engines.base import Backend, BuildOptions, Compiled, Engine, Graph, Support
from mvde.engines.known_bad import Combination, check_combination
from mvde.engines.machine import cpu_features
from mvde.engines.settings import Setting
from mvde.engines.tensorrt import checks, plan_build
from mvde.engines.tensorrt.api import Api, check_installed, load_api
from mvde.engines.tensorrt.choices import SETTINGS, TensorRtOptions
from mvde.engines.tensorrt.inspect import check_network, check_promise, inspect_network
from mvde.engines.tensorrt.parse import check_opset, parse_graph
from mvde.errors import BackendError, MissingDependencyError, UsageError
from mvde.precision import LOWERED, Precision
from mvde.records import DeviceRecord

if TYPE_CHECKING:
    from mvde.engines.opened import OpenedEngine
    from mvde.manifest import Manifest
    from mvde.records import EngineRecord

ENGINE_FILE = "engine.plan"


class TensorRtBackend:
    """TensorRT or TensorRT-RTX as a backend; :class:`~mvde.engines.base.Backend` documents the methods."""

    preferred_precisions = (Precision.FP16,)
    lowered_precisions = LOWERED  # strongly typed: the graph decides the dtypes
    proves_per_device = True

    def __init__(self, name: str) -> None:
        self.name = name

    def library_version(self) -> str:
        """Version of the installed library."""
        return load_api(self.name).version

    def support(self, precision: Precision) -> Support:
        """Whether an engine in ``precision`` runs on this machine, and if not, why."""
        try:
            check_installed(self.name)
            gpu = checks.require_device(self.name)  # before the library's import, which takes a second
            load_api(self.name)
            checks.check_arithmetic(precision, (gpu.compute_capability,))
        except (MissingDependencyError, BackendError) as error:
            return Support(False, str(error))
        return Support(True, f"computes in {precision} on {gpu}")

    def rests(self, precision: Precision) -> tuple[Precision, ...]:
        """Fp16 or fp32 for int8 and fp8."""
        return (Precision.FP16, Precision.FP32) if precision.is_quantized else ()

    def graph_rest(self, rest: Precision) -> Precision:
        """The rest itself: networks are strongly typed."""
        return rest

    def cpu_features(self) -> tuple[str, ...]:
        """All of the CPU's: engines run on the GPU."""
        return cpu_features()

    def weight_bits(self) -> int:
        """8: the GPU sums products in 32 bits."""
        return 8

    def settings(self) -> tuple[Setting, ...]:
        """Settings of :class:`TensorRtOptions`."""
        return SETTINGS

    def tuning_settings(self, precision: Precision, options: BuildOptions) -> list[dict[str, Any]]:
        """Raise :class:`UsageError`: the library times its own kernels during the build."""
        raise UsageError(
            f"--tune is for engines on the CPU; {self.name}:{precision} is timed by its library while it is built"
        )

    def thread_options(self, num_threads: int) -> Mapping[str, str]:
        """None: the GPU runs the engine."""
        return {}

    def check_source(self, manifest: Manifest, precision: Precision, options: BuildOptions, folder: Path) -> list[str]:
        """Check options, opset, GPU, its arithmetic and driver, known errors and disk space before a build starts.

        Returns warnings about accepted known errors. Raises :class:`BackendError`, :class:`UsageError` or
        :class:`OutputError`.
        """
        if options.num_threads is not None:
            raise UsageError(f"--threads is for engines on a CPU, but this is {self.name}:{precision}")
        target = self._target(options)
        checks.check_arithmetic(precision, target.capabilities)
        check_opset(target.api, manifest)
        graph_bytes = sum(record.size_bytes for record in (manifest.file, *manifest.companions))
        checks.check_disk(folder, graph_bytes)
        about = Combination(self.name, target.api.version, target.capabilities, precision, manifest.batch)
        return check_combination(about, options.accept_known_bad)

    def content_key(self, manifest: Manifest, precision: Precision, options: BuildOptions) -> str:
        """Hash (8 hexadecimal digits) of all that determines a plan: graph, precision, library, GPUs and options."""
        target = self._target(options)
        decides = [
            manifest.file.sha256,
            str(precision),
            target.api.version,
            *target.capabilities,
            repr(sorted(plan_build.chosen_flags(target.options, target.gpu).items())),
        ]
        if options.rest not in (None, *self.rests(precision)[:1]):
            decides.append(f"rest {options.rest}")
        return hashlib.sha256("\0".join(decides).encode()).hexdigest()[:8]

    def compile(self, graph: Graph, folder: Path, precision: Precision, options: BuildOptions) -> Compiled:
        """Verify the parsed network, build the plan and write it to ``folder``."""
        target = self._target(options)
        api, gpu = target.api, target.gpu
        builder = api.builder()
        parsed, parser = parse_graph(api, builder, graph.path)
        network = inspect_network(parsed)
        title = f"{api.library.title} {api.version}"
        check_network(network, precision, title)
        if graph.lowering is not None:
            check_promise(network, graph.lowering, title)
        started = time.perf_counter()
        plan = plan_build.build_plan(
            api, builder, parsed, target.options, gpu, target.capabilities, options.on_progress
        )
        build_s = round(time.perf_counter() - started, 2)
        del parser  # owns the weights; must live until here
        (folder / ENGINE_FILE).write_bytes(plan)
        return Compiled(
            file_names=(ENGINE_FILE,),
            executed_precision=network.executed_precision,
            device=gpu.name if gpu is not None else f"GPUs of compute capability {', '.join(target.capabilities)}",
            options=plan_build.chosen_flags(target.options, gpu),
            cuda=checks.cuda_record(api, gpu, target.capabilities, build_s, network),
            uses_cpu=False,
        )

    def rebuild_options(self, options: BuildOptions) -> BuildOptions:
        """Disable the timing cache: with it a rebuild would select the same kernels and prove nothing."""
        return dataclasses.replace(options, settings={**options.settings, "timing_cache": "no"})

    def mismatch(self, record: EngineRecord) -> str | None:
        """Reason why an engine cannot run on this machine with the installed library, or ``None``."""
        return checks.why_not_here(load_api(self.name), record, find_gpu())

    def device_facts(self) -> DeviceRecord | None:
        """The GPU, its compute capability, and the driver's CUDA version; ``None`` without a GPU."""
        gpu = find_gpu()
        return None if gpu is None else DeviceRecord(gpu.name, gpu.compute_capability, gpu.driver_cuda)

    def products(self, precision: Precision, size: int, count: int) -> Callable[[], object] | None:
        """None: peak throughput is measured for CPUs only."""
        return None

    def load(self, opened: OpenedEngine) -> Engine:
        """Load the plan on this machine's GPU."""
        from mvde.engines.tensorrt.engine import load

        api = load_api(self.name)
        return load(api, checks.check_here(api, opened.manifest.engine, opened.path), opened)

    def _target(self, options: BuildOptions) -> _Target:
        """Resolve the build's target. Raises as :mod:`~mvde.engines.tensorrt.checks` does."""
        chosen = TensorRtOptions.parse(self.name, options.settings)
        api = load_api(self.name)
        gpu = checks.check_device(api, without_device=options.without_device)
        capabilities = checks.chosen_capabilities(api, chosen, gpu, without_device=options.without_device)
        return _Target(api, chosen, gpu, capabilities)


@dataclasses.dataclass(frozen=True)
class _Target:
    """Build target: library, options, this machine's GPU (``None``: another machine's), compute capabilities."""

    api: Api
    options: TensorRtOptions
    gpu: Gpu | None
    capabilities: tuple[str, ...]


TENSORRT: Backend = TensorRtBackend("tensorrt")
TENSORRT_RTX: Backend = TensorRtBackend("tensorrt-rtx")
