"""The backend ``openvino``: engines for this machine's CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import Backend, BuildOptions, Compiled, Engine, Graph, Support
from mvde.engines.cpu_only import check_cpu_options, other_version
from mvde.engines.openvino import library
from mvde.engines.settings import Setting
from mvde.errors import BackendError
from mvde.precision import Precision

if TYPE_CHECKING:
    from mvde.engines.opened import OpenedEngine
    from mvde.manifest import Manifest
    from mvde.records import DeviceRecord, EngineRecord


class OpenVinoBackend:
    """OpenVINO as a backend; see :class:`~mvde.engines.base.Backend` for what each method answers."""

    name = "openvino"
    preferred_precisions = (Precision.BF16, Precision.FP32)
    lowered_precisions = (Precision.INT8,)  # it lowers the fp32 graph to the others itself
    proves_per_device = False

    def library_version(self) -> str:
        """Version of the installed OpenVINO."""
        return library.library_version()

    def support(self, precision: Precision) -> Support:
        """Whether this machine's CPU computes in ``precision``, and whose attention an engine gets."""
        from mvde.engines.openvino.attention import support_note

        answer = library.arithmetic(precision)
        return Support(True, answer.note + support_note(precision)) if answer.works else answer

    def rests(self, precision: Precision) -> tuple[Precision, ...]:
        """fp32, bf16 or fp16 for int8: the library lowers what is not quantised itself."""
        from mvde.engines.openvino.compile import RESTS, rest_of_int8

        return tuple(dict.fromkeys((rest_of_int8(), *RESTS))) if precision is Precision.INT8 else ()

    def graph_rest(self, rest: Precision) -> Precision:
        """fp32, whatever the rest will compute in."""
        return Precision.FP32

    def settings(self) -> tuple[Setting, ...]:
        """None: what the library has to choose is measured by tuning."""
        return ()

    def tuning_settings(self, precision: Precision, options: BuildOptions) -> list[dict[str, Any]]:
        """Settings of the library that are worth measuring here, each alone."""
        from mvde.engines.openvino.compile import tuning_settings

        return tuning_settings(precision, options)

    def check_source(self, manifest: Manifest, precision: Precision, options: BuildOptions, folder: Path) -> list[str]:
        """No warnings; raises for options that are not for a CPU and for a rest that this CPU does not compute in."""
        check_cpu_options(self, precision, options)
        if options.rest is not None and not (found := library.arithmetic(options.rest)).works:
            raise BackendError(f"--rest {options.rest}: {found.note}")
        return []

    def content_key(self, manifest: Manifest, precision: Precision, options: BuildOptions) -> str:
        """No key: an engine replaces the former one of the same graph and precision."""
        return ""

    def compile(self, graph: Graph, folder: Path, precision: Precision, options: BuildOptions) -> Compiled:
        """The blob, written to ``folder``."""
        from mvde.engines.openvino.compile import compile_graph

        return compile_graph(graph, folder, precision, options)

    def rebuild_options(self, options: BuildOptions) -> BuildOptions:
        """The same options: a compilation remembers nothing."""
        return options

    def mismatch(self, record: EngineRecord) -> str | None:
        """That another version is installed: blobs are for one version alone."""
        return other_version(self, record)

    def device_facts(self) -> DeviceRecord | None:
        """None: an engine runs on CPUs with the features that its manifest states."""
        return None

    def products(self, precision: Precision, size: int, count: int) -> Callable[[], object] | None:
        """Matrix products by oneDNN."""
        from mvde.engines.openvino.products import product_chain

        return product_chain(precision, size, count)

    def load(self, opened: OpenedEngine) -> Engine:
        """The engine over the bytes that were opened."""
        from mvde.engines.openvino.engine import load

        return load(opened)


OPENVINO: Backend = OpenVinoBackend()
