"""The backend ``onnxruntime``: engines for the CPU, or a GPU where the installed package has a provider for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import Backend, BuildOptions, Compiled, Engine, Graph, Support
from mvde.engines.cpu_only import check_cpu_options, other_version
from mvde.engines.onnxruntime import providers, session
from mvde.engines.settings import Setting
from mvde.errors import MissingDependencyError
from mvde.precision import Precision

if TYPE_CHECKING:
    from mvde.engines.opened import OpenedEngine
    from mvde.manifest import Manifest
    from mvde.records import DeviceRecord, EngineRecord

_SETTINGS = (Setting("provider", "cpu, cuda or tensorrt; the best there is by default"),)


class OnnxRuntimeBackend:
    """ONNX Runtime as a backend; see :class:`~mvde.engines.base.Backend` for what each method answers."""

    name = "onnxruntime"
    preferred_precisions = (Precision.FP32,)
    lowered_precisions = (Precision.FP16, Precision.INT8)
    proves_per_device = False

    def library_version(self) -> str:
        """Version of the installed ONNX Runtime."""
        return session.library_version()

    def support(self, precision: Precision) -> Support:
        """Whether this machine executes the ``precision`` graph with ONNX Runtime."""
        supported = (Precision.FP32, *self.lowered_precisions)
        if precision not in supported:
            kernels = f"ONNX Runtime has no products in {precision}"
            return Support(False, f"{kernels}; mvde builds {', '.join(supported)} for onnxruntime")
        try:
            provider = providers.default_provider()
        except MissingDependencyError as error:
            return Support(False, str(error))
        if precision is Precision.FP16 and provider is providers.Provider.CPU:
            return Support(True, "runs the fp16 graph; the CPU provider computes most products in fp32")
        return Support(True, f"{provider} provider")

    def rests(self, precision: Precision) -> tuple[Precision, ...]:
        """fp32 for int8."""
        return (Precision.FP32,) if precision is Precision.INT8 else ()

    def graph_rest(self, rest: Precision) -> Precision:
        """The rest itself: the library computes what the file says."""
        return rest

    def settings(self) -> tuple[Setting, ...]:
        """``provider``: what runs the graph."""
        return _SETTINGS

    def tuning_settings(self, precision: Precision, options: BuildOptions) -> list[dict[str, Any]]:
        """Settings of the library that are worth measuring here, each alone."""
        from mvde.engines.onnxruntime.compile import tuning_settings

        return tuning_settings(options)

    def check_source(self, manifest: Manifest, precision: Precision, options: BuildOptions, folder: Path) -> list[str]:
        """No warnings; raises for options that are not for a CPU, and for a provider that is not there."""
        from mvde.engines.onnxruntime.compile import chosen_provider

        check_cpu_options(self, precision, options)
        chosen_provider(options)
        return []

    def content_key(self, manifest: Manifest, precision: Precision, options: BuildOptions) -> str:
        """No key: an engine replaces the former one of the same graph and precision."""
        return ""

    def compile(self, graph: Graph, folder: Path, precision: Precision, options: BuildOptions) -> Compiled:
        """The graph, copied to ``folder`` and run once."""
        from mvde.engines.onnxruntime.compile import compile_graph

        return compile_graph(graph, folder, precision, options)

    def rebuild_options(self, options: BuildOptions) -> BuildOptions:
        """The same options: a session remembers nothing."""
        return options

    def mismatch(self, record: EngineRecord) -> str | None:
        """That another version is installed, which would rewrite the graph in another way."""
        return other_version(self, record)

    def device_facts(self) -> DeviceRecord | None:
        """None: an engine runs on CPUs with the features that its manifest states."""
        return None

    def products(self, precision: Precision, size: int, count: int) -> Callable[[], object] | None:
        """None: what its products reach says less of the CPU than OpenVINO's."""
        return None

    def load(self, opened: OpenedEngine) -> Engine:
        """The engine over the bytes that were opened."""
        from mvde.engines.onnxruntime.engine import load

        return load(opened)


ONNXRUNTIME: Backend = OnnxRuntimeBackend()
