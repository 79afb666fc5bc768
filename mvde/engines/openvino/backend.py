"""Backend ``openvino``: engines for this machine's CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import Backend, BuildOptions, Compiled, Engine, Graph, Support
from mvde.engines.cpu_only import check_cpu_options, other_version
from mvde.engines.isa import onednn_features, weight_bits
from mvde.engines.openvino import library
from mvde.engines.settings import Setting
from mvde.errors import BackendError
from mvde.precision import Precision

if TYPE_CHECKING:
    from mvde.engines.opened import OpenedEngine
    from mvde.manifest import Manifest
    from mvde.records import DeviceRecord, EngineRecord


class OpenVinoBackend:
    """OpenVINO as a backend; :class:`~mvde.engines.base.Backend` documents the methods."""

    name = "openvino"
    preferred_precisions = (Precision.BF16, Precision.FP32)
    lowered_precisions = (Precision.INT8,)  # the library lowers the fp32 graph to the others
    proves_per_device = False

    def library_version(self) -> str:
        """Version of the installed OpenVINO."""
        return library.library_version()

    def support(self, precision: Precision) -> Support:
        """Whether this CPU computes in ``precision``, and which attention kernel is used."""
        from mvde.engines.openvino.attention import support_note

        answer = library.arithmetic(precision)
        return Support(True, answer.note + support_note(precision)) if answer.works else answer

    def rests(self, precision: Precision) -> tuple[Precision, ...]:
        """Fp32, bf16 or fp16 for int8: the library lowers what is not quantised."""
        from mvde.engines.openvino.compile import RESTS, rest_of_int8

        return tuple(dict.fromkeys((rest_of_int8(), *RESTS))) if precision is Precision.INT8 else ()

    def graph_rest(self, rest: Precision) -> Precision:
        """Fp32: the library lowers the rest itself."""
        return Precision.FP32

    def cpu_features(self) -> tuple[str, ...]:
        """Features that oneDNN uses, which a variable can cap."""
        return onednn_features()

    def weight_bits(self) -> int:
        """7 on x86 before VNNI, where oneDNN's products of 8 bits saturate."""
        return weight_bits(onednn_features())

    def settings(self) -> tuple[Setting, ...]:
        """None: library settings are chosen by tuning."""
        return ()

    def tuning_settings(self, precision: Precision, options: BuildOptions) -> list[dict[str, Any]]:
        """Library settings to measure on this machine, one at a time."""
        from mvde.engines.openvino.compile import tuning_settings

        return tuning_settings(precision, options)

    def thread_options(self, num_threads: int) -> Mapping[str, str]:
        """OpenVINO's threads; an imported blob takes another number than it was compiled with."""
        return {"INFERENCE_NUM_THREADS": str(num_threads)}

    def check_source(self, manifest: Manifest, precision: Precision, options: BuildOptions, folder: Path) -> list[str]:
        """Reject unsupported options and a rest that this CPU cannot compute in; no warnings."""
        check_cpu_options(self, precision, options)
        if options.rest is not None and not (found := library.arithmetic(options.rest)).works:
            raise BackendError(f"--rest {options.rest}: {found.note}")
        return []

    def content_key(self, manifest: Manifest, precision: Precision, options: BuildOptions) -> str:
        """Empty: an engine replaces the previous one of the same graph and precision."""
        return ""

    def compile(self, graph: Graph, folder: Path, precision: Precision, options: BuildOptions) -> Compiled:
        """Write the blob to ``folder``."""
        from mvde.engines.openvino.compile import compile_graph

        return compile_graph(graph, folder, precision, options)

    def rebuild_options(self, options: BuildOptions) -> BuildOptions:
        """The same options: compilations keep no state between builds."""
        return options

    def mismatch(self, record: EngineRecord) -> str | None:
        """Reject engines of another library version: blobs are version-specific."""
        return other_version(self, record)

    def device_facts(self) -> DeviceRecord | None:
        """None: compatibility depends on the CPU features in the manifest."""
        return None

    def products(self, precision: Precision, size: int, count: int) -> Callable[[], object] | None:
        """Matrix products in oneDNN."""
        from mvde.engines.openvino.products import product_chain

        return product_chain(precision, size, count)

    def load(self, opened: OpenedEngine) -> Engine:
        """Load the engine from the opened bytes."""
        from mvde.engines.openvino.engine import load

        return load(opened)


OPENVINO: Backend = OpenVinoBackend()
