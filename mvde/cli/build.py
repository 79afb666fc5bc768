"""``mvde build``: compile exported graphs to engines for this machine, or for another machine's GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from mvde.cli.choices import Rest
from mvde.cli.groups import with_groups
from mvde.cli.shared_options import ENGINE_HELP, IMAGES_HELP, OUT_HELP, REST_HELP, GraphSelection, QuantizationOptions

if TYPE_CHECKING:
    from mvde.artifact import GraphArtifact
    from mvde.cli.build_list import Entry
    from mvde.engines.base import BuildOptions, EngineId


class _BuildCommand(TyperCommand):
    """Command whose help lists the ``--set`` keys of each backend, without loading inference libraries."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write one section per backend that has settings."""
        from mvde.engines.backends import backend, backend_names

        for name in backend_names():
            settings = backend(name).settings()
            if settings:
                with formatter.section(f"--set for {name}"):
                    formatter.write_dl([(setting.name, setting.help) for setting in settings])


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("build", cls=_BuildCommand)(with_groups(build))


@dataclass(frozen=True)
class CompileOptions:
    """Compilation options; see :class:`mvde.engines.base.BuildOptions`."""

    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads. Default: chosen by the library.")
    ] = None
    rest: Annotated[
        Rest | None,
        typer.Option(
            "--rest", help=f"{REST_HELP} Default: chosen per engine, e.g. bf16 for openvino:int8 if the CPU has it."
        ),
    ] = None
    tune: Annotated[
        float | None,
        typer.Option(
            "--tune",
            min=0.1,
            metavar="SECONDS",
            help="Tune library settings on this CPU for this long and keep the fastest.",
        ),
    ] = None
    verify_builds: Annotated[
        int, typer.Option("--verify-builds", min=1, help="Number of builds that must agree before one is kept.")
    ] = 1
    without_device: Annotated[
        bool,
        typer.Option(
            "--without-device",
            help="Build for another machine's GPU (tensorrt-rtx); run `mvde prove` there before use.",
        ),
    ] = False
    settings: Annotated[
        tuple[str, ...],
        typer.Option("--set", metavar="KEY=VALUE", help="Backend-specific setting, see below; repeatable."),
    ] = ()
    accept_known_bad: Annotated[
        bool, typer.Option("--accept-known-bad", help="Build combinations that `mvde doctor` lists as known bad.")
    ] = False

    def __post_init__(self) -> None:
        parse_settings(self.settings)

    def to_build_options(self) -> BuildOptions:
        """Convert to the options of :func:`mvde.engines.build.build_engine`."""
        from mvde.engines.base import BuildOptions

        return BuildOptions(
            num_threads=self.threads,
            rest=None if self.rest is None else self.rest.precision,
            settings=parse_settings(self.settings),
            tune_s=self.tune,
            num_builds=self.verify_builds,
            without_device=self.without_device,
            accept_known_bad=self.accept_known_bad,
        )


def build(
    *,
    graph: Annotated[
        Path | None,
        typer.Argument(metavar="[GRAPH]", help="fp32 graph from `mvde export`, instead of --name and --res."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", "-e", help=f"{ENGINE_HELP} Default: fastest supported on this machine."),
    ] = None,
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help='JSON list of engines to build: [{"engine": "fp16", "res": ["448"], "name": "base"}, ...].',
        ),
    ] = None,
    selection: GraphSelection,
    out: Annotated[Path, typer.Option("--out", "-o", help=OUT_HELP)] = Path("engines"),
    images: Annotated[Path | None, typer.Option("--images", help=IMAGES_HELP)] = None,
    quantization: QuantizationOptions,
    compiling: CompileOptions,
) -> None:
    """Build engines for this machine from exported graphs.

    Each engine is compared with its fp32 graph on photographs and kept only if depth and patch statistics agree.
    Lower-precision engines are built from the typed graph of `mvde lower`, which is created if missing.
    """
    from mvde.cli.build_list import Entry
    from mvde.cli.building import BuildRequest, build_and_report

    options = compiling.to_build_options()
    given = Entry(engine, selection.name, list(selection.res) or None, selection.batch)
    for source, engine_id in _wanted(listed, given, graph, selection.export_dir, options.without_device):
        request = BuildRequest(
            source, engine_id, out, options, images, quantization.quantization_images, quantization.method
        )
        build_and_report(request)


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """Parse ``KEY=VALUE`` texts to a dict; raises :class:`UsageError` for malformed texts and duplicate keys."""
    from mvde.errors import UsageError

    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals and value):
            raise UsageError(f"--set {text!r} is not understood; give KEY=VALUE, see `mvde build --help` for the keys")
        if key in found:
            raise UsageError(f"--set {key} is given twice, as {found[key]!r} and {value!r}; give it once")
        found[key] = value
    return found


def _wanted(
    listed: Path | None, given: Entry, graph: Path | None, export_dir: Path, without_device: bool
) -> list[tuple[GraphArtifact, EngineId]]:
    """Graph and engine id of every engine to build, without duplicates; resolved before the first build."""
    from mvde.cli.build_list import read_build_list
    from mvde.engines.base import EngineId
    from mvde.engines.store import best_engine_id, resolve
    from mvde.errors import UsageError

    if listed is not None and (graph or any(given)):
        raise UsageError("--list names the engines; leave GRAPH, --engine, --name, --res and --batch out")
    entries = read_build_list(listed) if listed is not None else [given]
    found = []
    for entry in entries:
        ids = [EngineId.parse(text) for text in entry.engines] if entry.engines else [best_engine_id()]
        if not without_device:
            ids = [resolve(engine_id) for engine_id in ids]
        found += [(source, engine_id) for source in _sources(graph, entry, export_dir) for engine_id in ids]
    return list({(str(source.path), str(engine_id)): (source, engine_id) for source, engine_id in found}.values())


def _sources(graph: Path | None, wanted: Entry, export_dir: Path) -> list[GraphArtifact]:
    """Exported graphs selected by the options; by default, all resolutions of the only model."""
    from mvde.artifact import find_onnx, list_graphs, load_graph
    from mvde.errors import ArtifactError, UsageError
    from mvde.resolution import parse_resolution

    if graph is not None:
        if wanted.name or wanted.res or wanted.batch:
            raise UsageError(f"{graph} names one graph; leave --name, --res and --batch out")
        return [_untyped(find_onnx(graph))]
    there = [found for found in list_graphs(export_dir) if found.manifest.lowering is None]
    name = wanted.name
    if name is None:
        names = {found.manifest.name for found in there}
        if not names:
            raise ArtifactError(f"{export_dir}/ holds no exported graph; write one: mvde export --res 896")
        if len(names) > 1:
            raise ArtifactError(f"{export_dir}/ holds graphs of {', '.join(sorted(names))}; say which with --name")
        name = names.pop()
    if wanted.res:
        return [find_onnx(name, parse_resolution(text), export_dir, wanted.batch) for text in wanted.res]
    matches = [found for found in there if found.manifest.name == name and wanted.batch in {None, found.manifest.batch}]
    if not matches:
        return [find_onnx(name, None, export_dir, wanted.batch)]  # raises, listing what there is
    return [load_graph(found.path) for found in matches]


def _untyped(source: GraphArtifact) -> GraphArtifact:
    """Return the graph if it is fp32, the reference of all engines; raise UsageError for a typed one."""
    from mvde.errors import UsageError

    record = source.manifest.lowering
    if record is not None:
        raise UsageError(
            f"{source.path} is typed ({record.precision}); give the fp32 graph, and mvde uses the typed one beside it "
            f"for engines in {record.precision}"
        )
    return source
