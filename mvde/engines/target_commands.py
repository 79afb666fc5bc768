"""Commands, in order, that bring a model onto a target: on the workstation, then on the robot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvde.engines.targets import Target

if TYPE_CHECKING:
    from mvde.artifact import GraphArtifact

_WORKSTATION, _ROBOT = "workstation", "target"


@dataclass(frozen=True)
class Step:
    """A shell command, and the machine that it is for (``on``): the workstation or the target."""

    on: str
    command: str


def commands(target: Target, engine: str | None, opset: int, graphs: Sequence[GraphArtifact]) -> list[Step]:
    """Commands that export, lower, copy, build and measure ``engine`` (``backend:precision``) of ``graphs``.

    Without graphs they are for the shipped model at 448 pixels. Empty if nothing works on the target (``engine`` is
    ``None``).
    """
    if engine is None:
        return []
    backend, precision = engine.split(":")
    steps = [Step(_WORKSTATION, line) for line in _export(opset, graphs)]
    if precision != "fp32":
        steps += [Step(_WORKSTATION, f"mvde lower {path} --to {precision}") for path in _lowered(graphs)]
    steps.append(Step(_WORKSTATION, f"rsync -a {_folder(graphs)}/ ROBOT:export/"))
    steps += [Step(_ROBOT, line) for line in (*_install(target, backend), "mvde doctor")]
    steps.append(Step(_ROBOT, _build(target, backend, engine)))
    return [*steps, Step(_ROBOT, f"mvde bench --engine {engine}")]


def _export(opset: int, graphs: Sequence[GraphArtifact]) -> list[str]:
    """Exports of graphs that the target's parser would not take, or of the shipped model."""
    if not graphs:
        return [f"mvde export --res 448 --opset {opset}"]
    stale = [graph.manifest for graph in graphs if graph.manifest.opset > opset and graph.manifest.lowering is None]
    return [
        f"mvde {'export' if manifest.source.kind == 'mvde' else 'import MODEL'} --name {manifest.name} "
        f"--res {manifest.resolution[0]}x{manifest.resolution[1]} --batch {manifest.batch} --opset {opset}"
        for manifest in stale
    ]


def _lowered(graphs: Sequence[GraphArtifact]) -> list[str]:
    """Paths of the fp32 graphs."""
    if not graphs:
        return ["export/nano-448x448.onnx"]
    return [str(graph.path) for graph in graphs if graph.manifest.lowering is None]


def _folder(graphs: Sequence[GraphArtifact]) -> str:
    return str(graphs[0].path.parent) if graphs else "export"


def _install(target: Target, backend: str) -> list[str]:
    """Installation: a JetPack's own TensorRT is seen from an environment with the system's packages."""
    if target.system is None:
        capped = "tensorrt<11" if backend == "tensorrt" and target.tensorrt.startswith("10.") else ""
        return ["python3 -m venv .venv && . .venv/bin/activate", " ".join(
            filter(None, (f"pip install 'mvde[{backend}]'", f"'{capped}'" if capped else ""))
        )]  # fmt: skip
    venv = "python3 -m venv --system-site-packages .venv && . .venv/bin/activate"
    if backend == "onnxruntime":
        return [venv, "pip install 'mvde[onnxruntime]'"]
    return [venv, f"pip install mvde 'cuda-core[cu{target.system.cuda.split('.')[0]}]>=1.0'"]


def _build(target: Target, backend: str, engine: str) -> str:
    if backend == "onnxruntime":
        return f"mvde build --engine {engine}"
    small = any(min(device.memory_gib) <= 8 for device in target.devices)
    return f"mvde build --engine {engine} --verify-builds 3{' --set workspace_mib=1024' if small else ''}"
