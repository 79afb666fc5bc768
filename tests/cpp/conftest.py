"""Manifests of fake engines, for errors before and after a session reads one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde.artifact import write_manifest
from mvde.files import file_record
from mvde.manifest import EngineManifest, InputSpec, Normalization, OutputSpec, SourceRecord
from mvde.precision import Precision
from mvde.records import EngineParity, EngineRecord, GraphParity, ParityReport, Tolerance

REPORT = ParityReport(0.1, 0.001, 0.01, 0.2, 3, {"mean": 0.1})


@pytest.fixture(scope="session")
def write_engine() -> Callable[..., EngineManifest]:
    """Writer of an invalid ``engine.plan`` with its manifest; keywords override the engine's record."""

    def write(folder: Path, **engine: object) -> EngineManifest:
        folder.mkdir(exist_ok=True)
        plan = folder / "engine.plan"
        plan.write_bytes(b"not a plan")
        record = EngineRecord(
            id="tensorrt-rtx:fp16",
            backend="tensorrt-rtx",
            precision=Precision.FP16,
            executed_precision="fp16",
            device="a GPU",
            library_version="1.0.0",
            cpu_features=(),
            options={"version_compatible": False},
            onnx_sha256="",
        )
        export = GraphParity("a model", "its graph", 1e-4, ("coffee.jpg",), REPORT)
        manifest = EngineManifest(
            name="tiny",
            created="2026-01-01T00:00:00+00:00",
            inputs=(InputSpec("image", (1, 32, 48, 3), "uint8", "BHWC", "RGB"),),
            outputs=(OutputSpec("depth", (1, 32, 48), "float32", "m"),),
            normalization=Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), folded=True),
            patch_size=16,
            grid=(2, 3),
            depth_range_m=(0.5, 10.0),
            depth_kind="metric",
            stats=("mean", "var", "grad"),
            opset=20,
            source=SourceRecord("", {}),
            file=file_record(plan),
            tools={"mvde": "0.1.0"},
            engine=dataclasses.replace(record, **engine),
            parity=EngineParity("the graph", Tolerance(0.001, 0.01, 0.002), export, REPORT),
        )
        write_manifest(manifest, plan)
        return manifest

    return write
