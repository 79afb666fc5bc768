"""Human-readable rows of a manifest, as shown by `mvde info`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mvde.camera import fov_from_focal
from mvde.contract import FocalConvention, Interpolation, PreprocessRecord
from mvde.manifest import EngineManifest, GraphManifest, Manifest, OutputSpec
from mvde.records import NOT_MEASURED, CudaRecord, EngineParity, EngineRecord, GraphParity, LoweringRecord, ParityReport

Row = tuple[str, str]


def rows(manifest: GraphManifest | EngineManifest) -> list[Row]:
    """Label and formatted value of each relevant field."""
    match manifest:
        case GraphManifest():
            return [*_common_rows(manifest), *_graph_parity_rows(manifest.parity)]
        case EngineManifest():
            parity = _engine_parity_rows(manifest.parity)
            return [*_common_rows(manifest), *parity, *_engine_rows(manifest.engine, manifest.lowering)]


def _common_rows(manifest: Manifest) -> list[Row]:
    low, high = manifest.valid_range
    found = [("kind", manifest.kind), ("name", manifest.name), ("created", manifest.created)]
    found += [("input", f"{x.name}: {x.dtype} {list(x.shape)} {x.layout}, {x.colour}") for x in manifest.inputs]
    found += [("output", f"{x.name}: {x.dtype} {list(x.shape)}, {_role(x)}") for x in manifest.outputs]
    file, source = manifest.file, manifest.source
    made_from = [source.kind, source.name, *(text for text in (source.revision, source.licence) if text)]
    return [
        *found,
        ("depth", f"{manifest.depth_kind}, {low:g} to {high:g} {_unit(manifest.unit)}"),
        *([("camera", camera_text(manifest))] if manifest.depth_kind.has_canonical_camera else []),
        ("patches", f"{manifest.grid[0]} rows x {manifest.grid[1]} columns of {manifest.stats_patch} px"),
        ("statistics", ", ".join(manifest.stats)),
        *_preprocess_rows(manifest.preprocess),
        ("opset", str(manifest.opset)),
        ("file", f"{file.name}, {file.size_bytes / 1e6:.2f} MB, SHA-256 {file.sha256} (verified)"),
        ("made from", f"{', '.join(made_from)}, SHA-256 {source.sha256}"),
        ("tools", ", ".join(f"{package} {version}" for package, version in manifest.tools.items())),
    ]


def camera_text(manifest: Manifest) -> str:
    """The camera that metres are for, by the field of view of a square picture where that follows; empty for none."""
    focal, convention = manifest.canonical_focal, manifest.focal_convention
    match convention:
        case None:
            return ""
        case FocalConvention.PIXELS:
            return f"focal length {focal:.4g} px of the network's input"
        case FocalConvention.GEOMETRIC | FocalConvention.HORIZONTAL:
            shown = fov_from_focal(focal or 0.0)
            return f"relative focal length {focal:.4g} ({convention}); field of view of a square image {shown:.1f}°"


def _preprocess_rows(record: PreprocessRecord) -> list[Row]:
    """How a frame enters the network."""
    shape = record.fit if record.multiple == 1 else f"{record.fit} to multiples of {record.multiple} px"
    kernel = str(record.interpolation)
    if record.interpolation is Interpolation.BICUBIC:
        kernel += f" ({record.bicubic_coefficient:g})"
    resized = f"{shape}, {kernel}, {'with' if record.antialias else 'without'} antialiasing"
    if record.align_corners:
        resized += ", corners aligned"
    if record.fit == "letterbox":
        resized += f", padded with {record.padding}"
    scaled = f"{record.colour} from 0 to {record.pixel_range:g}"
    values = f"mean {_numbers(record.mean)}, std {_numbers(record.std)} of {scaled}, inside the graph"
    return [("preprocessing", resized), ("normalisation", values)]


def _graph_parity_rows(parity: GraphParity) -> list[Row]:
    return [
        ("parity: reference", parity.reference),
        ("parity: candidate", parity.candidate),
        ("parity: tolerance", f"max_rel {parity.tolerance_max_rel:g}"),
        ("parity: photos", ", ".join(parity.photos)),
        *_measured_rows(parity.measured),
    ]


def _engine_parity_rows(parity: EngineParity) -> list[Row]:
    found = [("parity: reference", parity.reference), ("parity: tolerance", _readable(asdict(parity.tolerance)))]
    if parity.measured is None:
        found.append(("parity", NOT_MEASURED))
    else:
        found += _measured_rows(parity.measured)
    if parity.measured_on is not None:
        found.append(("parity: measured on", _readable(asdict(parity.measured_on))))
    return [*found, ("parity: export", _readable(asdict(parity.export)))]


def _measured_rows(measured: ParityReport) -> list[Row]:
    return [(f"parity: {key}", _readable(value)) for key, value in asdict(measured).items() if value is not None]


def _engine_rows(engine: EngineRecord, lowering: LoweringRecord | None) -> list[Row]:
    return [
        ("engine", engine.id),
        ("computes in", f"{engine.executed_precision} on {engine.device}"),
        ("library", f"{engine.backend} {engine.library_version}"),
        *([("CPU features", ", ".join(engine.cpu_features))] if engine.cpu_features else []),
        ("options", _readable(engine.options)),
        *((part.replace("_", " "), what) for part, what in sorted(engine.rewrites.items(), reverse=True)),
        ("graph", f"SHA-256 {engine.onnx_sha256}"),
        *(("known error", text) for text in engine.known_errors),
        *([] if engine.cuda is None else _cuda_rows(engine.cuda, lowering)),
    ]


def _cuda_rows(cuda: CudaRecord, promised: LoweringRecord | None) -> list[Row]:
    """Target of a TensorRT plan and statistics of the parsed network."""
    network = cuda.network
    nodes = network.num_by_dtype
    attentions = f"{network.num_attention} attentions" + (f" of {promised.num_attention}" if promised else "")
    return [
        ("built for", f"compute capability {', '.join(cuda.compute_capabilities)}"),
        ("nodes", ", ".join(f"{100 * network.share(key):.0f} % of the nodes compute in {key}" for key in nodes)),
        ("products", ", ".join(f"{count} in {key}" for key, count in network.products_by_dtype.items())),
        ("recognised", f"{attentions}, {network.num_layer_norm} layer normalisations"),
    ]


def _role(output: OutputSpec) -> str:
    return output.role.value if output.threshold is None else f"{output.role} from {output.threshold:g} on"


def _unit(unit: str) -> str:
    return {"m": "m", "1": "(no unit)"}.get(unit, unit)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_readable(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
