"""NVIDIA Triton model repository: the graph or plan, a Python backend model for statistics, and an ensemble.

The three models of ``nano`` are ``nano-depth`` (bytes → depth), ``nano-stats`` (depth → statistics) and ``nano``, the
ensemble that clients call. The formats are Triton's: https://github.com/triton-inference-server/server (docs/
user_guide/model_repository.md and model_configuration.md), https://github.com/triton-inference-server/python_backend.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mvde.artifact import EngineArtifact, GraphArtifact
from mvde.errors import OutputError, UsageError
from mvde.files import scratch_folder
from mvde.manifest import EngineManifest, InputSpec, Manifest, OutputSpec
from mvde.publish import publish_folders

_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
_VERSION = "1"

STATS_MODEL = '''"""Patch statistics of depth, for Triton's Python backend, where mvde must be installed."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

from mvde import depth_to_patch_stats


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.patch_size = int(parameters["patch_size"]["string_value"])
        self.stats = tuple(parameters["stats"]["string_value"].split(","))

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        depth = pb_utils.get_input_tensor_by_name(request, "depth").as_numpy()
        stats = depth_to_patch_stats(depth, self.patch_size, self.stats).astype(np.float32)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("stats", stats)])
'''


class _Tensor(NamedTuple):
    """What a configuration says of a tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def write_repository(artifact: GraphArtifact | EngineArtifact, root: Path) -> list[Path]:
    """Write the three models to the repository ``root``, replacing models of the same name; return their folders.

    Each is replaced in one step, so that Triton sees the old model or the new one (see
    :func:`mvde.publish.publish_folders`); the ensemble comes last. ``artifact`` is a graph (served by Triton's
    onnxruntime backend) or a TensorRT engine (served by its tensorrt backend of the same version). Raises
    :class:`UsageError` for another engine, :class:`OutputError` if it cannot write.
    """
    backend = _backend(artifact)
    manifest = artifact.manifest
    if others := ", ".join(output.role for output in manifest.outputs[1:]):
        raise UsageError(
            f"models for Triton return depth and its statistics, but {manifest.name} also has {others}; make it of "
            f"depth alone: mvde import --output NAME=depth"
        )
    name = manifest.name
    models = {
        f"{name}-depth": _depth_config(f"{name}-depth", manifest, backend),
        f"{name}-stats": _stats_config(f"{name}-stats", manifest),
        name: _ensemble_config(name, manifest),
    }
    with scratch_folder(root, name) as staging:
        for model, config in models.items():
            version = staging / model / _VERSION
            version.mkdir(parents=True)
            (version.parent / "config.pbtxt").write_text(config, encoding="utf-8")
        (staging / f"{name}-stats" / _VERSION / "model.py").write_text(STATS_MODEL, encoding="utf-8")
        target = staging / f"{name}-depth" / _VERSION
        shutil.copyfile(artifact.path, target / _FILES[backend])
        for record in manifest.companions:  # the graph refers to these names
            shutil.copyfile(artifact.path.with_name(record.name), target / record.name)
        for model in models:
            _check_replaceable(root / model)
        publish_folders([staging / model for model in models], root)
    return [root / model for model in models]


def _check_replaceable(target: Path) -> None:
    """Raise :class:`OutputError` for an existing folder that is not a model."""
    if target.exists() and not (target / "config.pbtxt").is_file():
        raise OutputError(f"{target} exists and is not a Triton model; choose another folder with --out")


def _backend(artifact: GraphArtifact | EngineArtifact) -> str:
    """Triton backend for an artefact."""
    manifest = artifact.manifest
    if not isinstance(manifest, EngineManifest):
        return "onnxruntime"
    if manifest.engine.backend != "tensorrt":
        raise UsageError(
            f"{artifact.path} is an engine of {manifest.engine.backend}, which Triton does not serve; give an "
            "ONNX graph or a tensorrt engine"
        )
    return "tensorrt"


def _depth_config(name: str, manifest: Manifest, backend: str) -> str:
    image, depth = manifest.inputs[0], manifest.outputs[0]
    kind = "KIND_GPU" if backend == "tensorrt" else "KIND_AUTO"
    head = f'name: "{name}"\nbackend: "{backend}"\ndefault_model_filename: "{_FILES[backend]}"\nmax_batch_size: 0\n'
    groups = f"instance_group [ {{ count: 1 kind: {kind} }} ]\n"
    return head + _tensors("input", [image]) + _tensors("output", [depth]) + groups


def _stats_config(name: str, manifest: Manifest) -> str:
    parameters = {"patch_size": str(manifest.stats_patch), "stats": ",".join(manifest.stats)}
    head = f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n'
    groups = "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
    settings = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
    )
    tensors = _tensors("input", [manifest.outputs[0]]) + _tensors("output", [_stats_spec(manifest)])
    return head + tensors + groups + settings


def _ensemble_config(name: str, manifest: Manifest) -> str:
    image, depth = manifest.inputs[0], manifest.outputs[0]
    head = f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: 0\n'
    steps = [
        _step(f"{name}-depth", {image.name: image.name}, {depth.name: depth.name}),
        _step(f"{name}-stats", {depth.name: depth.name}, {"stats": "stats"}),
    ]
    tensors = _tensors("input", [image]) + _tensors("output", [depth, _stats_spec(manifest)])
    return head + tensors + "ensemble_scheduling {\n" + "".join(steps) + "}\n"


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = "".join(f' input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs.items())
    maps += "".join(f' output_map {{ key: "{key}" value: "{value}" }}' for key, value in outputs.items())
    return f'  step {{ model_name: "{model}" model_version: -1{maps} }}\n'


def _stats_spec(manifest: Manifest) -> _Tensor:
    shape = (manifest.batch, manifest.grid[0] * manifest.grid[1], len(manifest.stats))
    return _Tensor("stats", shape, "float32")


def _tensors(kind: str, specs: Sequence[InputSpec | OutputSpec | _Tensor]) -> str:
    return "".join(
        f'{kind} [ {{ name: "{spec.name}" data_type: {_TYPES[spec.dtype]} dims: {list(spec.shape)} }} ]\n'
        for spec in specs
    )
