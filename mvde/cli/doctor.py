"""``mvde doctor``: what this machine has, and which engine ids would work on it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_LIBRARIES = (
    "numpy", "pillow", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13", "torch",
    "transformers", "onnx", "onnxscript", "av", "moderngl",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Nothing; adds the verb to the application."""
    app.command("doctor")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False) -> None:
    """Show what this machine has and which engines work here.

    CPU, memory, GPUs, library versions, and every engine id with what it would compute in, or why it would not work.
    """
    import json

    facts = examine()
    print(json.dumps(facts, indent=2)) if as_json else _print(facts)


def examine() -> dict[str, Any]:
    """What this machine is, as JSON types: ``machine``, ``libraries``, ``native``, ``engines``, ``warnings``."""
    import platform

    from mvde import __version__
    from mvde.engines import machine, store

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
            "gpus": machine.nvidia_gpus(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "libraries": libraries,
        "native": _native(),
        "engines": engines,
        "warnings": _warnings(libraries),
    }


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _warnings(libraries: dict[str, str]) -> list[str]:
    """Combinations that are known to go wrong, each with its way out."""
    found = []
    if "onnxruntime" in libraries and "onnxruntime-gpu" in libraries:
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed; they share one folder and the later one wins: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one you want"
        )
    if not {"openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13"} & set(libraries):
        found.append("no inference library is installed: pip install 'mvde[openvino]' or 'mvde[onnxruntime]'")
    return found


def _native() -> str:
    """Which implementation serves the patch statistics."""
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
    from rich.console import Console
    from rich.table import Table

    console, machine = Console(), facts["machine"]
    console.print(f"mvde {facts['mvde']}, Python {machine['python']}, {machine['system']}", highlight=False)
    console.print(
        f"CPU     {machine['cpu']}, {machine['num_cpus']} cores, {' '.join(machine['cpu_features'])}", highlight=False
    )
    console.print(f"Memory  {machine['memory_bytes'] / 2**30:.1f} GiB", highlight=False)
    console.print(f"GPU     {'; '.join(machine['gpus']) or 'no NVIDIA GPU'}", highlight=False)
    console.print(f"Native  {facts['native']}", highlight=False)
    versions = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    console.print(f"Python packages  {versions}", highlight=False)
    table = Table("engine id", "works here", "what it computes in, or why not")
    for engine in facts["engines"]:
        table.add_row(engine["id"], "yes" if engine["works"] else "no", engine["note"].replace("[", r"\["))
    console.print(table)
    for warning in facts["warnings"]:
        console.print(f"warning: {warning}", markup=False, highlight=False)
