"""``mvde build``: exported graphs → engines for this machine, or for another one's GPU; and their proof on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mvde.artifact import GraphArtifact
    from mvde.cli.build_list import Entry
    from mvde.engines.base import BuildOptions, EngineId
    from mvde.engines.build import BuildReport
    from mvde.records import TuningRecord


def register(app: typer.Typer) -> None:
    """Nothing; adds the verb to the application."""
    app.command("build")(build)


def build(
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            "-e",
            help="Engine id, [backend:]precision, e.g. fp16 or openvino:bf16; repeatable. Default: the best one here.",
        ),
    ] = None,
    res: Annotated[
        list[str] | None, typer.Option("--res", help="Resolution of the graph, H or HxW; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Model name, where several were exported.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images per call, where several were exported.")
    ] = None,
    onnx: Annotated[Path | None, typer.Option("--onnx", help="An exported graph, instead of --name and --res.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help='Build everything that a JSON file lists: [{"engine": "fp16", "res": ["448"], "name": "base"}, ...].',
        ),
    ] = None,
    export_dir: Annotated[Path, typer.Option("--export-dir", help="Folder that `mvde export` wrote to.")] = Path(
        "export"
    ),
    out: Annotated[Path, typer.Option("--out", help="Folder for the engines.")] = Path("engines"),
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of photographs to measure parity on. Default: those that ship."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Folder of photographs that decide a lowered graph (fp16, int8, …); every fourth judges it. "
            "Default: the typed graph that `mvde export --precision` wrote, or crops of the photographs that ship.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads. Default: the library's choice.")
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option("--provider", help="For onnxruntime: cpu, cuda or tensorrt. Default: the best there is."),
    ] = None,
    rest: Annotated[
        str | None,
        typer.Option(
            "--rest",
            help="openvino:int8: what is not quantised computes in: fp32, bf16 or fp16. Default: bf16 where the CPU "
            "has it, else fp32.",
        ),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="On a CPU: measure the library's settings here and keep the fastest.")
    ] = False,
    tune_seconds: Annotated[
        float, typer.Option("--tune-seconds", min=0.1, help="How long --tune measures, without compiling.")
    ] = 20.0,
    verify_builds: Annotated[
        int, typer.Option("--verify-builds", min=1, help="Build so many times; all must agree before one is kept.")
    ] = 1,
    prove: Annotated[
        Path | None,
        typer.Option("--prove", help="Measure an engine that was built without its device, here, and stamp it."),
    ] = None,
    without_device: Annotated[
        bool,
        typer.Option(
            "--without-device",
            help="tensorrt-rtx: build for another machine's GPU; the engine is refused until --prove measured it.",
        ),
    ] = False,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option("--compute-capability", help="tensorrt-rtx: of a GPU to build for, e.g. 8.9; repeatable."),
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option("--optimization-level", help="TensorRT: 0 (fast to build) to 5 (fast to run).")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option("--workspace", help="TensorRT: scratch memory of a layer at most, MiB.")
    ] = None,
    aux_streams: Annotated[
        int | None, typer.Option("--aux-streams", help="TensorRT: streams besides the caller's. Default: 0 on Jetson.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: a plan that later versions of the major load, too.")
    ] = False,
    hardware_compatible: Annotated[
        str,
        typer.Option("--hardware-compatible", help="TensorRT: none, ampere-plus or same-compute-capability."),
    ] = "none",
    timing_cache: Annotated[
        bool, typer.Option("--timing-cache/--no-timing-cache", help="TensorRT: keep what was timed on this GPU.")
    ] = True,
    dla: Annotated[
        int | None, typer.Option("--dla", help="Refused: mvde builds for the GPU.", show_default=False)
    ] = None,
    accept_known_bad: Annotated[
        bool, typer.Option("--accept-known-bad", help="Build although `mvde doctor` lists the combination as wrong.")
    ] = False,
) -> None:
    """Build engines for this machine from exported graphs.

    Each engine is compared with its fp32 graph on photographs and is kept only if depth and patch statistics agree.
    """
    from mvde.cli.build_list import Entry
    from mvde.engines.base import BuildOptions
    from mvde.engines.tensorrt.options import TensorRtOptions
    from mvde.errors import UsageError

    if prove is not None:
        if config or engine or onnx or name or res or batch:
            raise UsageError(
                "--prove measures the one engine that it names; leave --config, --engine, --onnx, --name, --res and "
                "--batch out"
            )
        _prove(prove)
        return
    _refuse_dla(dla)
    tensorrt = TensorRtOptions(
        optimization_level=optimization_level,
        workspace_mib=workspace,
        num_aux_streams=aux_streams,
        version_compatible=version_compatible,
        hardware=hardware_compatible,
        compute_capabilities=tuple(dict.fromkeys(compute_capability or ())),
        timing_cache=timing_cache,
    )
    options = BuildOptions(
        num_threads=threads,
        provider=provider,
        tensorrt=tensorrt,
        without_device=without_device,
        num_builds=verify_builds,
        accept_known_bad=accept_known_bad,
        rest=rest,
        tune_s=tune_seconds if tune else None,
    )
    for source, engine_id in _wanted(config, Entry(engine, name, res, batch), onnx, export_dir, without_device):
        _report(_build_one(source, engine_id, options, images, calibration, out))


def _wanted(
    config: Path | None,
    given: Entry,
    onnx: Path | None,
    export_dir: Path,
    without_device: bool,
) -> list[tuple[GraphArtifact, EngineId]]:
    """Graph and engine id of every engine to build, without repetitions; all are found before the first is built."""
    from mvde.cli.build_list import read_build_list
    from mvde.engines.base import EngineId
    from mvde.engines.store import best_engine_id, resolve
    from mvde.errors import UsageError

    if config is not None and (onnx or any(given)):
        raise UsageError("--config lists the engines; leave --engine, --onnx, --name, --res and --batch out")
    entries = read_build_list(config) if config is not None else [given]
    found = []
    for entry in entries:
        ids = [EngineId.parse(text) for text in entry.engines] if entry.engines else [best_engine_id()]
        if not without_device:
            ids = [resolve(engine_id) for engine_id in ids]
        sources = _sources(onnx, entry, export_dir)
        found += [(source, engine_id) for source in sources for engine_id in ids]
    return list({(str(source.path), str(engine_id)): (source, engine_id) for source, engine_id in found}.values())


def _build_one(
    source: GraphArtifact,
    engine_id: EngineId,
    options: BuildOptions,
    images: Path | None,
    calibration: Path | None,
    out: Path,
) -> BuildReport:
    import dataclasses

    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mvde.cli.lowering import lower_options
    from mvde.engines.build import build_engine
    from mvde.export.precision import lowerer
    from mvde.image import read_photographs
    from mvde.runtime.placement import Fit, fitted

    # TensorRT computes what is not quantised in fp16, and wants it so in the file; OpenVINO lowers that part itself.
    rest = "fp32" if engine_id.backend in {"openvino", "onnxruntime"} else "fp16"
    lowering = lower_options(source.manifest, calibration, rest=rest)
    what = f"building {engine_id} from {source.path}"
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(what), total=None)

        def show(phase: str, num_done: int, num_steps: int) -> None:
            progress.update(task, description=escape(f"{what}: {phase}"), completed=num_done, total=num_steps)

        def tell(message: str) -> None:
            progress.update(task, description=escape(f"{what}: {message}"))

        return build_engine(
            source,
            engine_id,
            fitted(read_photographs(images), source.manifest.resolution, Fit.CROP),
            root=out,
            options=dataclasses.replace(options, on_progress=show),
            lower_graph=lowerer(source, dataclasses.replace(lowering, progress=tell)),
        )


def _report(report: BuildReport) -> None:
    import sys

    record = report.manifest.engine
    for warning in report.warnings:
        print(f"mvde: warning: {warning}", file=sys.stderr)
    print(f"{report.folder}: {record.id}, computes in {record.executed_precision} on {record.device}")
    if report.parity is None:
        print(f"  compiled in {report.compile_s:.2f} s; parity not measured: no device when it was built")
        print(f"  it is refused until it was measured where it will run: mvde build --prove {report.folder}")
        return
    if "attention" in record.rewrites:
        print(f"  attention: {record.rewrites['attention']}")
    _report_tuning(record.tuning)
    print(f"  compiled in {report.compile_s:.2f} s, loads in {report.load_s:.2f} s; against fp32 {report.parity}")


def _report_tuning(tuning: TuningRecord | None) -> None:
    """Prints every setting that was measured, the fastest first."""
    if tuning is None:
        return
    for candidate in sorted(tuning.candidates, key=lambda one: one.median_ms or float("inf")):
        settings = ", ".join(f"{key}={value}" for key, value in candidate.settings.items()) or "the library's choice"
        chosen = " (chosen)" if candidate.settings == tuning.chosen else ""
        measured = "refused" if candidate.refused else f"{candidate.median_ms:.2f} ms, {candidate.gain:.3f}x"
        print(f"  {settings}: {measured}{chosen}")


def _prove(path: Path) -> None:
    from rich.console import Console
    from rich.markup import escape

    from mvde.engines.proof import prove_engine

    with Console(stderr=True).status(escape(f"measuring {path}")):
        proof = prove_engine(path)
    device = proof.manifest.parity.measured_on
    where = f"{device.gpu}, {device.compute_capability}, CUDA {device.driver_cuda}" if device else "this CPU"
    print(f"{proof.folder}: measured on {where}; loads in {proof.load_s:.2f} s; against fp32 {proof.parity}")


def _refuse_dla(core: int | None) -> None:
    from mvde.errors import UsageError

    if core is not None:
        raise UsageError(
            f"--dla {core}: engines for the deep-learning accelerator are not built; it has no attention and no layer "
            "normalisation, and would hand nearly every layer back to the GPU. Leave the option out"
        )


def _untyped(source: GraphArtifact) -> GraphArtifact:
    """The graph itself, if it is the fp32 one: engines of a typed graph are measured against that."""
    from mvde.errors import UsageError

    record = source.manifest.lowering
    if record is not None:
        raise UsageError(
            f"{source.path} is typed ({record.precision}); give --onnx the fp32 graph, and mvde takes the typed one "
            f"beside it for engines in {record.precision}"
        )
    return source


def _sources(onnx: Path | None, wanted: Entry, export_dir: Path) -> list[GraphArtifact]:
    """The exported graphs that the options name; with none of them, the only one there is."""
    from mvde.artifact import find_onnx, list_graphs, load_graph
    from mvde.errors import ArtifactError, UsageError
    from mvde.resolution import parse_resolution

    if onnx is not None:
        if wanted.name or wanted.res or wanted.batch:
            raise UsageError("--onnx names one graph; leave --name, --res and --batch out")
        return [_untyped(find_onnx(onnx))]
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
