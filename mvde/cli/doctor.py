"""``mvde doctor``: hardware and libraries of this machine, and the engine ids it supports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mvde.cli.output import STDOUT, write_json
from mvde.cli.shared_options import JSON_HELP
from mvde.cli.terminal import console

_LIBRARIES = (
    "numpy", "pillow", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13", "cuda-core", "cuda-bindings", "torch", "transformers", "onnx", "onnxscript", "av", "moderngl",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("doctor")(doctor)


def doctor(
    graph: Annotated[
        Path | None, typer.Argument(metavar="[GRAPH]", help="Graph, or folder of graphs, to judge for --target.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help="Another system: a JetPack (jetpack-7.2), a Jetson (orin-nx) or a compute capability (sm_90).",
        ),
    ] = None,
    json_path: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)] = None,
) -> None:
    """Show hardware, libraries and engines of this machine, or of a --target.

    Each engine id is listed with the precision that it would execute in, or why it is not supported.
    """
    import json

    from mvde.cli.doctor_target import examine_target, print_target
    from mvde.errors import UsageError

    if graph is not None and target is None:
        raise UsageError(f"got the graph {graph} without a system to judge it for; add --target, such as jetpack-7.2")
    facts = examine() if target is None else examine_target(target, graph)
    if json_path is not None:
        write_json(json_path, json.dumps(facts, indent=2))
    if json_path != STDOUT:
        (_print if target is None else print_target)(facts)


def examine() -> dict[str, Any]:
    """Facts as JSON types.

    ``mvde``, ``machine``, ``libraries``, ``native``, ``native_openvino``, ``engines``, ``warnings``.
    """
    import platform

    from mvde import __version__
    from mvde.engines import machine, store
    from mvde.engines.openvino import native_backend

    libraries = {name: version for name in _LIBRARIES if (version := _version(name))}
    engines = [
        {"id": str(engine_id), "works": answer.works, "note": answer.note}
        for engine_id in store.all_engine_ids()
        for answer in [store.support(engine_id)]
    ]
    return {
        "mvde": __version__,
        "machine": {
            "cpu": machine.cpu_name(),
            "num_cpus": machine.num_cpus(),
            "cpu_features": list(machine.cpu_features()),
            "memory_bytes": machine.memory_bytes(),
            "gpus": _gpus(),
            "jetson": machine.jetson_release(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "libraries": libraries,
        "native": _native(),
        "native_openvino": native_backend.description(),
        "engines": engines,
        "warnings": _warnings(libraries),
    }


def _gpus() -> list[str]:
    """One line per GPU, from ``nvidia-smi`` or, where it is missing (Jetson), from the driver."""
    from mvde.cuda.gpu import find_gpu
    from mvde.engines import machine

    gpu = find_gpu()
    return machine.nvidia_gpus() or ([str(gpu)] if gpu is not None else [])


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _warnings(libraries: dict[str, str]) -> list[str]:
    """Known problematic combinations of libraries, each with its remedy."""
    found = []
    if "onnxruntime" in libraries and "onnxruntime-gpu" in libraries:
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one you want"
        )
    if not {"openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13"} & set(libraries):
        found.append("no inference library is installed: pip install 'mvde[openvino]' or 'mvde[onnxruntime]'")
    return found + _known_bad(libraries)


def _known_bad(libraries: dict[str, str]) -> list[str]:
    """Known errors of the installed TensorRT on this machine's GPU; affected builds report them, too."""
    from mvde.cuda.gpu import find_gpu
    from mvde.engines.known_bad import all_known_bad

    gpu = find_gpu()
    versions = {"tensorrt": libraries.get("tensorrt")}
    versions["tensorrt-rtx"] = libraries.get("tensorrt-rtx-cu13") or libraries.get("tensorrt-rtx-cu12")
    return [
        f"{entry.backend} {version}: {entry}"
        for backend, version in versions.items()
        if version is not None
        for entry in all_known_bad()
        if entry.concerns_library(backend, version)
        and (gpu is None or not entry.compute_capabilities or gpu.compute_capability in entry.compute_capabilities)
    ]


def _native() -> str:
    """Implementation that computes the patch statistics."""
    from mvde import native
    from mvde.errors import MvdeError

    try:
        if not native.is_available():
            return "libmvde is not installed; NumPy computes the patch statistics"
        kernels = ", ".join(native.available_kernels())
        return f"libmvde {native.version()}, kernel {native.kernel()} (this CPU can run {kernels})"
    except MvdeError as error:
        return f"libmvde cannot be used: {error}"


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    shown, machine = console(), facts["machine"]
    shown.print(f"mvde {facts['mvde']}, Python {machine['python']}, {machine['system']}", highlight=False)
    shown.print(
        f"CPU     {machine['cpu']}, {machine['num_cpus']} cores, {' '.join(machine['cpu_features'])}", highlight=False
    )
    shown.print(f"Memory  {machine['memory_bytes'] / 2**30:.1f} GiB", highlight=False)
    shown.print(f"GPU     {'; '.join(machine['gpus']) or 'no NVIDIA GPU'}", highlight=False)
    if machine["jetson"]:
        shown.print(f"Jetson  {machine['jetson']}", highlight=False)
    shown.print(f"Native  {facts['native']}", highlight=False)
    shown.print(f"        {facts['native_openvino']}", markup=False, highlight=False)
    versions = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    shown.print(f"Python packages  {versions}", highlight=False)
    table = Table("engine id", "works here", "executed precision, or why not")
    for engine in facts["engines"]:
        table.add_row(engine["id"], "yes" if engine["works"] else "no", engine["note"].replace("[", r"\["))
    shown.print(table)
    for warning in facts["warnings"]:
        shown.print(f"warning: {warning}", markup=False, highlight=False)
