"""Backend ``onnxruntime``: engines for the CPU, or for a GPU if the installed package has the provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import Backend, BuildOptions, Compiled, Engine, Graph, Support
from mvde.engines.cpu_only import check_cpu_options, other_version
from mvde.engines.machine import cpu_features
from mvde.engines.onnxruntime import providers, session
from mvde.engines.settings import Setting
from mvde.errors import MissingDependencyError
from mvde.precision import Precision

if TYPE_CHECKING:
    from mvde.engines.opened import OpenedEngine
    from mvde.manifest import Manifest
    from mvde.records import DeviceRecord, EngineRecord

_SETTINGS = (Setting("provider", "cpu, cuda or tensorrt; default: best available"),)


class OnnxRuntimeBackend:
    """ONNX Runtime as a backend; :class:`~mvde.engines.base.Backend` documents the methods."""

    name = "onnxruntime"
    preferred_precisions = (Precision.FP32,)
    lowered_precisions = (Precision.FP16, Precision.INT8)
    proves_per_device = False

    def library_version(self) -> str:
        """Version of the installed ONNX Runtime."""
        return session.library_version()

    def support(self, precision: Precision) -> Support:
        """Whether ONNX Runtime can execute a ``precision`` graph on this machine."""
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
        """Fp32 for int8; no choice for other precisions."""
        return (Precision.FP32,) if precision is Precision.INT8 else ()

    def graph_rest(self, rest: Precision) -> Precision:
        """The rest itself: the library computes in the dtypes of the file."""
        return rest

    def cpu_features(self) -> tuple[str, ...]:
        """All of the CPU's: no variable caps the library."""
        return cpu_features()

    def weight_bits(self) -> int:
        """8 on every CPU.

        Signed Q/DQ pairs do not saturate before VNNI: on AVX2 nano at 192 differs from the arithmetic as written by
        0.8 % with 8 bits and by 0.6 % with 7, whose own rounding costs more (OpenVINO: 2.0 % and 0.6 %).
        """
        return 8

    def settings(self) -> tuple[Setting, ...]:
        """``provider``: the execution provider."""
        return _SETTINGS

    def tuning_settings(self, precision: Precision, options: BuildOptions) -> list[dict[str, Any]]:
        """Library settings to measure on this machine, one at a time."""
        from mvde.engines.onnxruntime.compile import tuning_settings

        return tuning_settings(options)

    def thread_options(self, num_threads: int) -> Mapping[str, str]:
        """ONNX Runtime's threads within an operator; it runs one operator at a time."""
        return {"num_threads": str(num_threads)}

    def check_source(self, manifest: Manifest, precision: Precision, options: BuildOptions, folder: Path) -> list[str]:
        """Reject unsupported options and unavailable providers; no warnings."""
        from mvde.engines.onnxruntime.compile import chosen_provider

        check_cpu_options(self, precision, options)
        chosen_provider(options)
        return []

    def content_key(self, manifest: Manifest, precision: Precision, options: BuildOptions) -> str:
        """Empty: an engine replaces the previous one of the same graph and precision."""
        return ""

    def compile(self, graph: Graph, folder: Path, precision: Precision, options: BuildOptions) -> Compiled:
        """Copy the graph to ``folder`` and profile one run."""
        from mvde.engines.onnxruntime.compile import compile_graph

        return compile_graph(graph, folder, precision, options)

    def rebuild_options(self, options: BuildOptions) -> BuildOptions:
        """The same options: sessions keep no state between builds."""
        return options

    def mismatch(self, record: EngineRecord) -> str | None:
        """Reject engines of another library version, which may optimise the graph differently."""
        return other_version(self, record)

    def device_facts(self) -> DeviceRecord | None:
        """None: compatibility depends on the CPU features in the manifest."""
        return None

    def products(self, precision: Precision, size: int, count: int) -> Callable[[], object] | None:
        """None: OpenVINO's products measure the CPU's peak better."""
        return None

    def load(self, opened: OpenedEngine) -> Engine:
        """Load the engine from the opened bytes."""
        from mvde.engines.onnxruntime.engine import load

        return load(opened)


ONNXRUNTIME: Backend = OnnxRuntimeBackend()
