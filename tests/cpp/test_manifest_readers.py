"""Python and libmvde accept the same manifests and reject the others with the same messages."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mvde import native
from mvde.artifact import read_manifest
from mvde.calibration.interval_record import HeldOutRecord, IntervalsRecord, IntervalTable, NearestTable
from mvde.calibration.record import Calibration, CameraRecord, MeasuredRecord, read_calibration
from mvde.contract import DepthKind
from mvde.errors import CalibrationError, ManifestError
from mvde.manifest import EngineManifest, with_digest
from mvde.precision import Precision
from mvde.records import (
    CalibrationRecord,
    CudaRecord,
    DeviceRecord,
    GateRecord,
    GateRun,
    GateTolerance,
    KeptNodes,
    LoweringRecord,
    NetworkRecord,
    ParityReport,
    TuningCandidate,
    TuningRecord,
)
from mvde.schema import to_json_types
from tests.cpp.ctypes_session import load, options_of

pytestmark = pytest.mark.skipif(not native.is_available(), reason="libmvde is not built: make native")

MANIFEST_ERROR = -11  # MVDE_ERROR_MANIFEST
CASES = json.loads((Path(__file__).parents[1] / "data" / "manifest_cases.json").read_text(encoding="utf-8"))
WRONG_VALUES = [None, True, -1, 2.5, "text", ["text"], {"text": 1}]

REPORT = ParityReport(0.1, 0.001, 0.01, 0.2, 3, {"mean": 0.1})
LOWERING = LoweringRecord(
    precision=Precision.INT8,
    onnx_sha256="ab",
    num_by_dtype={"int8": 3, "fp16": 2},
    num_attention=1,
    num_layer_norm=2,
    kept=(KeptNodes("head", Precision.FP32, 7, "measured"),),
    calibration=CalibrationRecord(6, "cd", "entropy", {"layer norms": "left"}),
    gate=GateRecord(
        "int8",
        GateTolerance(0.01, 0.01, 0.02, 0.1),
        (GateRun("six photographs", 6, "the graph", (0.0, 0.1), (1.0, 0.9), REPORT),),
    ),
)
TUNING = TuningRecord(20.0, {"A": 1}, (TuningCandidate({"A": 1}, 2.5, 1.1, 1.05), TuningCandidate({}, refused="no")))
CUDA = CudaRecord(
    "13", "13.0", "a GPU", ("8.9",), 3.5, NetworkRecord(9, {"fp16": 9}, {"fp16": 4}, 1, 1, 2, ("resize",))
)
CALIBRATION = Calibration(
    name="tiny",
    created="2026-01-01T00:00:00+00:00",
    graph_sha256="a" * 64,
    engine="openvino:int8",
    depth_kind=DepthKind.INVERSE_RELATIVE,
    resolution=(32, 48),
    fit="letterbox",
    frame=(480, 640),
    scale=0.25,
    shift=-0.125,
    camera=CameraRecord(500.0, 500.5, 319.5, 239.5),
    measured=MeasuredRecord(20, 5, (0.5, 4.0), 0.03, 0.02),
)
WITH_INTERVALS = dataclasses.replace(
    CALIBRATION,
    depth_kind=DepthKind.INVERSE_CANONICAL,
    shift=0.0,
    intervals=IntervalsRecord(
        coverage=0.9,
        nearest_coverage=0.95,
        mean=IntervalTable((1.5,), (0.8, 0.75), (1.2, 1.3)),
        nearest=NearestTable((2.0,), (0.8, 0.6)),
        camera_factor=(0.8, 1.25),
        held_out=HeldOutRecord(
            num_scenes=40,
            num_frames=80,
            num_patches=9000,
            patches=0.9,
            scenes=0.91,
            worst_scenes=0.7,
            bins=(0.9, 0.88),
            nearest=0.95,
            width=0.87,
        ),
    ),
)
FULL: dict[str, dict[str, Any]] = {
    "engine": {
        **{key: to_json_types(record) for key, record in {"tuning": TUNING, "cuda": CUDA}.items()},
        "rewrites": {"attention": "amx"},
        "known_errors": ["one"],
    },
    "parity": {"measured_on": to_json_types(DeviceRecord("a GPU", "8.9", "13.0"))},
    "lowering": to_json_types(LOWERING),
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, write_engine: Callable[..., EngineManifest]) -> dict[str, Any]:
    """Return an engine's manifest with every record, for a backend that libmvde does not have."""
    plain = write_engine(tmp_path_factory.mktemp("full") / "engine", id="x:int8", backend="x").to_dict()
    for key, more in FULL.items():
        plain[key] = {**plain.get(key, {}), **more}
    return {**plain, "num_flops": 12, "companions": [{**plain["file"], "name": "more"}]}


@pytest.fixture
def refusals_of_bytes(
    tmp_path: Path, write_engine: Callable[..., EngineManifest]
) -> Callable[[bytes], tuple[str, str]]:
    """Return a function from a manifest's content to the errors of Python and libmvde; "" if accepted."""
    folder = tmp_path / "engine"
    write_engine(folder)
    (folder / "more").write_bytes((folder / "engine.plan").read_bytes())
    library = load()

    def refuse(content: bytes) -> tuple[str, str]:
        (folder / "engine.json").write_bytes(content)
        try:
            read_manifest(folder / "engine.json")
            python = ""
        except ManifestError as error:
            python = str(error)
        session = ctypes.c_void_p()
        status = library.mvde_open(str(folder).encode(), None, ctypes.byref(session))
        return python, library.mvde_last_error().decode() if status == MANIFEST_ERROR else ""

    return refuse


@pytest.fixture
def refusals(refusals_of_bytes: Callable[[bytes], tuple[str, str]]) -> Callable[[Any], tuple[str, str]]:
    """Return the same for plain JSON, with a matching digest."""
    return lambda plain: refusals_of_bytes(with_digest(json.dumps(plain)).encode())


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all keys and first items in nested JSON."""
    for key in value if isinstance(value, dict) else range(min(1, len(value))) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def inside(plain: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        plain = plain[key]
    return plain


def spoiled(full: Any) -> Iterator[Any]:
    """Yield the manifest with each key or item removed, replaced by every type, or with an unknown key added."""
    for *parents, key in places(full):
        missing, unknown = copy.deepcopy(full), copy.deepcopy(full)
        del inside(missing, tuple(parents))[key]
        yield missing
        if isinstance(key, str):
            inside(unknown, tuple(parents))["unknown"] = 1
            yield unknown
        for value in WRONG_VALUES:
            wrong = copy.deepcopy(full)
            inside(wrong, tuple(parents))[key] = value
            yield wrong


def as_graph(engine: dict[str, Any]) -> dict[str, Any]:
    """Return a graph's manifest with the keys it shares with the engine's."""
    shared = {key: value for key, value in engine.items() if key != "engine"}
    return {**shared, "kind": "onnx", "parity": engine["parity"]["export"]}


def check_refusals(plain: Any, wrong: Iterable[Any], refusals: Callable[[Any], tuple[str, str]]) -> int:
    """Check that both accept the valid manifest and give equal errors for the others; return the number of errors."""
    assert refusals(plain) == ("", "")
    num_refused = 0
    for spoilt in wrong:
        python, libmvde = refusals(spoilt)
        assert libmvde == python, json.dumps(spoilt)
        num_refused += bool(python)
    return num_refused


@pytest.mark.extended
def test_both_refuse_the_same_manifests_of_engines_with_the_same_words(full, refusals):
    assert check_refusals(full, spoiled(full), refusals) > 500


@pytest.mark.slow
def test_both_refuse_the_same_manifests_of_graphs_with_the_same_words(full, refusals):
    graph = as_graph(full)
    small = {key: value for key, value in graph.items() if key != "lowering"}
    assert check_refusals(graph, spoiled(small), refusals) > 200


@pytest.mark.parametrize("calibration", [CALIBRATION, WITH_INTERVALS], ids=["scale", "intervals"])
def test_both_refuse_the_same_calibrations_with_the_same_words(tmp_path, write_engine, calibration):
    path = tmp_path / "a.calibration.json"
    write_engine(tmp_path / "engine")
    library, session = load(), ctypes.c_void_p()
    options = options_of(library, calibration_path=str(path).encode())

    def refuse(plain: Any) -> tuple[str, str]:
        path.write_text(with_digest(json.dumps(plain)), encoding="utf-8")
        try:
            read_calibration(path)
            python = ""
        except CalibrationError as error:
            python = str(error)
        status = library.mvde_open(str(tmp_path / "engine").encode(), ctypes.byref(options), ctypes.byref(session))
        return python, library.mvde_last_error().decode() if status == MANIFEST_ERROR else ""

    full = json.loads(calibration.to_json())
    del full["digest"]  # renewed for each
    assert check_refusals(full, spoiled(full), refuse) > 100


def as_changed(text: str, case: dict[str, Any]) -> bytes:
    """Return a manifest's content after the change described by a case, with a matching digest if possible."""
    if "set" in case:
        plain, ((*parents, key), value) = json.loads(text), case["set"]
        inside(plain, tuple(parents))[key] = value
        return with_digest(json.dumps(plain, ensure_ascii=False)).encode()
    replaced = text.replace(*case["replace"])
    try:
        return with_digest(replaced).encode()
    except ManifestError:  # not JSON
        return replaced.encode()


def test_both_have_the_same_verdict_on_hostile_and_odd_manifests(write_engine, refusals_of_bytes, tmp_path):
    text = write_engine(tmp_path / "engine").to_json()
    for case in CASES:
        python, libmvde = refusals_of_bytes(as_changed(text, case))
        assert (bool(python), bool(libmvde)) == (case["verdict"] == "refused",) * 2, (case["name"], python, libmvde)


def test_both_refuse_a_manifest_without_a_digest_or_with_a_wrong_one_in_the_same_words(
    write_engine, refusals_of_bytes, tmp_path
):
    text = write_engine(tmp_path / "engine").to_json()
    plain = json.loads(text)
    digest = plain.pop("digest")
    wrong = [json.dumps(plain), json.dumps({"digest": digest, **plain}), json.dumps({**plain, "digest": 1})]
    wrong += [text.replace("tiny", "tinx"), text.replace(digest, digest.upper()), text + " "]
    for content in wrong:
        python, libmvde = refusals_of_bytes(content.encode())
        assert "digest" in python
        assert libmvde == python


def test_no_flipped_bit_is_read_by_libmvde(write_engine, refusals_of_bytes, tmp_path):
    content = write_engine(tmp_path / "engine").to_json().encode()
    assert refusals_of_bytes(content) == ("", "")
    for at in range(len(content)):
        damaged = content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]
        assert all(refusals_of_bytes(damaged)), (at, content[at - 20 : at + 20])
