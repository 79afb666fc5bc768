"""The backends ``tensorrt`` and ``tensorrt-rtx``: the verbs that every backend has, over parse, inspect and build."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.cuda.gpu import find_gpu
from mvde.engines.base import BuildOptions, Compiled, Graph, Support
from mvde.engines.known_bad import Combination, check_combination
from mvde.engines.tensorrt import build, checks
from mvde.engines.tensorrt.api import Api, check_installed, load_api
from mvde.engines.tensorrt.inspect import check_network, check_promise, inspect_network
from mvde.engines.tensorrt.parse import check_opset, parse_graph
from mvde.errors import BackendError, MissingDependencyError, UsageError
from mvde.records import DeviceRecord

if TYPE_CHECKING:
    from mvde.cuda.gpu import Gpu
    from mvde.engines.base import Engine
    from mvde.manifest import EngineManifest, Manifest
    from mvde.records import EngineRecord

ENGINE_FILE = "engine.plan"


class TensorRtBackend:
    """One of the two libraries as a backend of mvde; see :func:`mvde.engines.store.backend_module`."""

    SUPPORTED_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
    LOWERED_PRECISIONS = ("fp16", "bf16", "int8", "fp8")  # strongly typed: the graph itself says what computes in what

    def __init__(self, backend: str) -> None:
        self.backend = self.BACKEND = backend

    def library_version(self) -> str:
        """Version of the installed library. Raises :class:`MissingDependencyError` without one."""
        return load_api(self.backend).version

    def support(self, precision: str) -> Support:
        """Whether an engine of that precision would run on this machine, and why not."""
        try:
            check_installed(self.backend)
            gpu = checks.require_device(self.backend)  # before the library is imported, which takes a second
            load_api(self.backend)
            checks.check_arithmetic(precision, (gpu.compute_capability,))
        except (MissingDependencyError, BackendError) as error:
            return Support(False, str(error))
        return Support(True, f"computes in {precision} on {gpu}")

    def check_source(self, manifest: Manifest, precision: str, options: BuildOptions, folder: Path) -> list[str]:
        """Warnings about a build that is about to start.

        Raises :class:`BackendError`, :class:`UsageError` or :class:`OutputError` for everything that is known before
        the first minute is spent: the opset, the GPU, its arithmetic and driver, known errors, the disk.
        """
        if options.num_threads is not None or options.provider is not None:
            raise UsageError(
                f"--threads and --provider are for engines on a CPU, but this is {self.backend}:{precision}"
            )
        api = load_api(self.backend)
        gpu = checks.check_device(api, options)
        capabilities = checks.chosen_capabilities(api, options, gpu)
        checks.check_arithmetic(precision, capabilities)
        check_opset(api, manifest)
        graph_bytes = sum(record.size_bytes for record in (manifest.file, *manifest.companions))
        checks.check_disk(folder, graph_bytes)
        about = Combination(self.backend, api.version, capabilities, precision, manifest.batch)
        return check_combination(about, options.accept_known_bad)

    def compile_graph(self, graph: Graph, folder: Path, precision: str, chosen: BuildOptions) -> Compiled:
        """The engine written to ``folder`` as the library's plan, after the parsed network was found to be as promised.

        Raises :class:`BackendError` where the library refuses the graph or would compute something else.
        """
        api = load_api(self.backend)
        gpu = checks.check_device(api, chosen)
        capabilities = checks.chosen_capabilities(api, chosen, gpu)
        builder = api.builder()
        network, parser = parse_graph(api, builder, graph.path)
        facts = inspect_network(network)
        title = f"{api.library.title} {api.version}"
        check_network(facts, precision, title)
        if graph.precision is not None:
            check_promise(facts, graph.precision, title)
        started = time.perf_counter()
        plan = build.build_plan(api, builder, network, chosen.tensorrt, gpu, capabilities, chosen.on_progress)
        build_s = round(time.perf_counter() - started, 2)
        del parser  # it owned the weights until here
        (folder / ENGINE_FILE).write_bytes(plan)
        return Compiled(
            file_names=(ENGINE_FILE,),
            executed_precision=facts.executed_precision,
            device=gpu.name if gpu is not None and not chosen.without_device else _device_of(capabilities),
            options=build.chosen_flags(chosen.tensorrt, gpu),
            cuda=checks.cuda_record(api, gpu, capabilities, build_s, facts),
            uses_cpu=False,
        )

    def content_key(self, manifest: Manifest, precision: str, options: BuildOptions) -> str:
        """Eight hexadecimal digits of what decides a plan's content: graph, precision, library, GPUs and options."""
        api = load_api(self.backend)
        gpu = checks.check_device(api, options)
        decides = [
            manifest.file.sha256,
            precision,
            api.version,
            *checks.chosen_capabilities(api, options, gpu),
            repr(sorted(build.chosen_flags(options.tensorrt, gpu).items())),
        ]
        return hashlib.sha256("\0".join(decides).encode()).hexdigest()[:8]

    def mismatch(self, record: EngineRecord) -> str | None:
        """Why an engine cannot run on this machine with the installed library, or ``None``."""
        return checks.why_not_here(load_api(self.backend), record, find_gpu())

    def device_facts(self) -> DeviceRecord | None:
        """What an engine's measured parity holds for: the GPU, its compute capability, and the driver's CUDA."""
        gpu = find_gpu()
        return None if gpu is None else DeviceRecord(gpu.name, gpu.compute_capability, gpu.driver_cuda)

    def load(self, path: Path, manifest: EngineManifest) -> Engine:
        """The engine at ``path``, which the store has checked against this machine.

        Raises :class:`IncompatibleEngineError` where the library cannot load it.
        """
        from mvde.engines.tensorrt.session import load_session

        api: Api = load_api(self.backend)
        gpu: Gpu = checks.check_here(api, manifest.engine, path)
        return load_session(api, gpu, path, manifest)


def _device_of(capabilities: tuple[str, ...]) -> str:
    return f"GPUs of compute capability {', '.join(capabilities)}"


TENSORRT = TensorRtBackend("tensorrt")
TENSORRT_RTX = TensorRtBackend("tensorrt-rtx")
