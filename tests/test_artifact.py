"""Manifests, checksums, atomic writes and lookup of artefacts."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvde import artifact
from mvde.artifact import GraphArtifact
from mvde.errors import ArtifactError, HashMismatchError, ManifestError, OutputError
from mvde.files import atomic_write, file_record, sha256_file, sweep
from mvde.manifest import EngineManifest, GraphManifest, Manifest, manifest_from_dict
from mvde.precision import Precision
from mvde.publish import staged_write
from mvde.records import (
    CalibrationRecord,
    EngineParity,
    EngineRecord,
    GateRecord,
    GateRun,
    GateTolerance,
    KeptNodes,
    LoweringRecord,
    ParityReport,
    Tolerance,
)

Writer = Callable[..., GraphArtifact]

REPORT = ParityReport(1e-3, 1e-4, 5e-4, 0.01, 3, {"mean": 1e-4})


@pytest.fixture
def graph(write_graph: Writer, tmp_path: Path) -> GraphArtifact:
    return write_graph(tmp_path / "export", "tiny", (32, 48))


def as_engine(graph: GraphArtifact, folder: Path, engine_id: str) -> Path:
    """Write an engine file of three bytes with a manifest derived from a graph's; returns its path."""
    backend, precision = engine_id.split(":")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "engine.bin"
    path.write_bytes(b"abc")
    record = EngineRecord(
        engine_id, backend, Precision(precision), "f32", "CPU", "1.0", ("avx2",), {"threads": 2}, "0" * 64
    )
    parity = EngineParity("the fp32 graph", Tolerance(1e-4, 1e-3, 1e-3), graph.manifest.parity, REPORT)
    shared = {spec.name: getattr(graph.manifest, spec.name) for spec in dataclasses.fields(Manifest)}
    shared.update(file=file_record(path), created="now")
    artifact.write_manifest(EngineManifest(**shared, engine=record, parity=parity), path)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_sha256_is_the_published_test_vector(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_manifest_survives_json_unchanged(graph: GraphArtifact) -> None:
    again = manifest_from_dict(json.loads(graph.manifest.to_json()))
    assert again == graph.manifest
    assert again.resolution == (32, 48)
    assert again.batch == 1


def test_operations_are_kept_where_they_were_counted(graph: GraphArtifact) -> None:
    assert "num_flops" not in dataclasses.replace(graph.manifest, num_flops=None).to_dict()
    counted = dataclasses.replace(graph.manifest, num_flops=12_000)
    assert manifest_from_dict(json.loads(counted.to_json())).num_flops == 12_000


def test_engine_manifest_survives_json_unchanged(graph: GraphArtifact, tmp_path: Path) -> None:
    path = as_engine(graph, tmp_path / "engines", "openvino:bf16")
    manifest = artifact.load_engine_artifact(path).manifest
    assert manifest.engine.cpu_features == ("avx2",)
    assert manifest_from_dict(json.loads(manifest.to_json())) == manifest


def test_typed_manifest_survives_json_unchanged(graph: GraphArtifact) -> None:
    kept = KeptNodes("head", Precision.FP32, 7, "depth moved by 2.1e-02")
    images = CalibrationRecord(6, "0" * 64, "percentile")
    run = GateRun("photographs", 3, "ground truth", (0.10, 0.11), (0.9, 0.89), REPORT)
    gate = GateRecord("float32", GateTolerance(1e-2, 1e-2, 2e-2, 1e-1), (run,))
    record = LoweringRecord(Precision.INT8, "1" * 64, {"int8": 3, "fp32": 1}, 2, 4, (kept,), images, gate)
    manifest = dataclasses.replace(graph.manifest, lowering=record)
    assert manifest_from_dict(json.loads(manifest.to_json())) == manifest
    assert record.share("int8") == 0.75
    assert run.abs_rel_change == pytest.approx(0.1)
    with pytest.raises(ManifestError, match=r"lowering\.kept\[0\]\.num_nodes must be int"):
        manifest_from_dict(json.loads(manifest.to_json().replace(": 7,", ': "7",')))
    with pytest.raises(ManifestError, match=r"lowering\.precision is 'int4', but expected one of fp32, fp16"):
        manifest_from_dict(json.loads(manifest.to_json().replace('"precision": "int8"', '"precision": "int4"')))


@pytest.mark.parametrize(
    "key",
    [spec.name for spec in dataclasses.fields(GraphManifest) if spec.default is dataclasses.MISSING],
)
def test_missing_key_is_named(graph: GraphArtifact, key: str) -> None:
    plain = graph.manifest.to_dict()
    del plain[key]
    with pytest.raises(ManifestError, match=key):
        manifest_from_dict(plain)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda plain: plain.update(patchsize=16), "patchsize"),
        (lambda plain: plain["file"].update(md5="0"), r"file\.md5"),
        (lambda plain: plain.update(stats_patch="16"), "stats_patch"),
        (lambda plain: plain.update(stats_patch=True), "stats_patch"),
        (lambda plain: plain.update(stats_patch=0), "stats_patch"),
        (lambda plain: plain.update(grid=[2]), "grid"),
        (lambda plain: plain.update(grid=[3, 3]), "grid"),
        (lambda plain: plain.update(valid_range=[10.0, 0.1]), "valid_range"),
        (lambda plain: plain.update(valid_range=[float("nan"), 1.0]), "valid_range"),
        (lambda plain: plain.update(depth_kind="disparity"), "depth_kind"),
        (lambda plain: plain.update(kind="engine"), "engine"),
        (lambda plain: plain.update(kind="blob"), "kind is 'blob', but expected one of onnx, engine"),
        (lambda plain: plain.pop("kind"), "kind is missing"),
        (lambda plain: plain["parity"]["measured"].update(max_rel="0"), r"parity\.measured\.max_rel"),
        (lambda plain: plain.update(inputs=[]), "inputs"),
        (lambda plain: plain["inputs"][0].update(shape=[1, 3, 32, 48]), "shape"),
        (lambda plain: plain["inputs"][0].update(shape=[0, 32, 48, 3]), "shape"),
        (lambda plain: plain["outputs"][0].update(shape=[1, "H", 48]), r"outputs\[0\]\.shape\[1\]"),
        (lambda plain: plain["file"].update(name="../../etc/passwd"), r"file\.name"),
        (lambda plain: plain["file"].update(sha256="xyz"), r"file\.sha256"),
        (lambda plain: plain["file"].update(size_bytes=-1), r"file\.size_bytes"),
        (lambda plain: plain.update(tools={"torch": 2}), r"tools\.torch"),
        (lambda plain: plain.update(num_flops=0), "num_flops"),
        (lambda plain: plain.update(num_flops=1.5), "num_flops"),
        (lambda plain: plain.update(schema_version=1), "schema_version 1"),
        (lambda plain: plain.update(preprocess=None), "preprocess"),
    ],
)
def test_wrong_value_is_named(graph: GraphArtifact, change: Callable[[dict[str, Any]], object], named: str) -> None:
    plain = graph.manifest.to_dict()
    change(plain)
    with pytest.raises(ManifestError, match=named):
        manifest_from_dict(plain)


@pytest.mark.parametrize("plain", [None, [], 3, "text", {}])
def test_json_that_is_no_manifest_is_refused(plain: object) -> None:
    with pytest.raises(ManifestError, match="not a manifest"):
        manifest_from_dict(plain)


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, "\xff\xfe"])
def test_unreadable_json_is_a_manifest_error(graph: GraphArtifact, text: str) -> None:
    artifact.manifest_path(graph.path).write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError):
        artifact.load_artifact(graph.path)


def test_graph_without_manifest_is_refused(graph: GraphArtifact) -> None:
    artifact.manifest_path(graph.path).unlink()
    with pytest.raises(ManifestError, match=r"no manifest .*tiny-32x48\.json.*mvde export"):
        artifact.load_artifact(graph.path)


def test_changed_file_is_refused(graph: GraphArtifact) -> None:
    content = bytearray(graph.path.read_bytes())
    content[-1] ^= 1
    graph.path.write_bytes(content)
    with pytest.raises(HashMismatchError, match="SHA-256"):
        artifact.load_artifact(graph.path)


def test_truncated_file_is_refused_with_both_sizes(graph: GraphArtifact) -> None:
    size_bytes = graph.path.stat().st_size
    graph.path.write_bytes(graph.path.read_bytes()[:-7])
    with pytest.raises(HashMismatchError, match=f"{size_bytes - 7} bytes.*{size_bytes}"):
        artifact.load_artifact(graph.path)


def test_missing_file_and_missing_companion_are_refused(graph: GraphArtifact) -> None:
    lost = artifact.FileRecord("weights.data", "0" * 64, 3)
    artifact.write_manifest(dataclasses.replace(graph.manifest, companions=(lost,)), graph.path)
    with pytest.raises(HashMismatchError, match=r"weights\.data.*missing"):
        artifact.load_artifact(graph.path)
    graph.path.unlink()
    with pytest.raises(ArtifactError, match="there is no file"):
        artifact.load_artifact(graph.path)
    with pytest.raises(HashMismatchError, match="missing"):
        artifact.load_artifact(artifact.manifest_path(graph.path))


def test_manifest_of_another_file_is_refused(graph: GraphArtifact) -> None:
    copy = graph.path.with_name("copy.onnx")
    copy.write_bytes(graph.path.read_bytes())
    artifact.manifest_path(copy).write_text(graph.manifest.to_json())
    with pytest.raises(HashMismatchError, match=r"describes tiny-32x48\.onnx, not copy\.onnx"):
        artifact.load_artifact(copy)


def test_find_onnx_by_name_resolution_stem_and_path(write_graph: Writer, tmp_path: Path) -> None:
    small = write_graph(tmp_path, "tiny", (32, 48))
    large = write_graph(tmp_path, "tiny", (64, 64))
    several = write_graph(tmp_path, "tiny", (64, 64), 2)
    assert artifact.find_onnx("tiny", (32, 48), tmp_path).path == small.path
    assert artifact.find_onnx("tiny", (64, 64), tmp_path, batch=2).path == several.path
    assert artifact.find_onnx("tiny-64x64", None, tmp_path).path == large.path
    assert artifact.find_onnx(small.path).path == small.path
    assert artifact.find_onnx(artifact.manifest_path(small.path)).path == small.path


def test_find_onnx_lists_what_there_is(write_graph: Writer, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is none at all"):
        artifact.find_onnx("tiny", (32, 48), tmp_path)
    write_graph(tmp_path, "tiny", (32, 48))
    with pytest.raises(ArtifactError, match=r"'other'.*tiny 32x48"):
        artifact.find_onnx("other", None, tmp_path)
    write_graph(tmp_path, "tiny", (64, 64))
    with pytest.raises(ArtifactError, match=r"several match.*32x48.*64x64.*--res"):
        artifact.find_onnx("tiny", None, tmp_path)
    with pytest.raises(ArtifactError, match=r"no file or folder .*lost\.onnx"):
        artifact.find_onnx(str(tmp_path / "lost.onnx"))


def test_engines_are_found_by_id_and_by_precision(graph: GraphArtifact, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    bf16 = as_engine(graph, folder / "a", "openvino:bf16")
    fp32 = as_engine(graph, folder / "b", "openvino:fp32")
    also_fp32 = as_engine(graph, folder / "c", "onnxruntime:fp32")

    def found(*what: Any) -> list[Path]:
        return [one.path for one in artifact.find_engines(*what)]

    assert found("tiny", None, "openvino:bf16", folder) == [bf16]
    assert found("tiny", (32, 48), "bf16", folder) == [bf16]
    assert found("tiny", None, "fp32", folder) == [fp32, also_fp32]
    assert found(folder / "b") == found(fp32) == [fp32]
    with pytest.raises(ArtifactError, match=r"int8.*openvino:bf16.*mvde build --engine int8"):
        found("tiny", None, "int8", folder)
    with pytest.raises(ArtifactError, match="kind 'onnx'"):
        found(graph.path)


def test_foreign_json_and_hidden_folders_are_passed_over(graph: GraphArtifact) -> None:
    folder = graph.path.parent
    (folder / "foreign.json").write_text('{"a": 1}')
    hidden = folder / ".half.tmp"
    hidden.mkdir()
    artifact.manifest_path(hidden / graph.path.name).write_text(graph.manifest.to_json())
    assert [found.path for found in artifact.list_graphs(folder)] == [graph.path]


def test_atomic_write_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    for text in ("old", "new"):
        with atomic_write(target) as temporary:
            assert temporary.parent == target.parent
            temporary.write_text(text)
        assert target.read_text() == text
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_interrupted_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_write(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_full_disk_is_one_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match=r"cannot write .*file\.txt: No space left on device"):  # noqa: SIM117
        with atomic_write(target) as temporary:
            temporary.write_text("new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "export").write_text("in the way")
    with pytest.raises(OutputError), staged_write(tmp_path / "export", "a"):
        pass


def test_staged_files_appear_together(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("old")
    with staged_write(tmp_path, "a") as staging:
        (staging / "a.onnx").write_text("new")
        (staging / "a.json").write_text("{}")
        assert (tmp_path / "a.onnx").read_text() == "old"
    assert (tmp_path / "a.onnx").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.onnx"]


def test_staged_interruption_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged_write(tmp_path / "export", "a") as staging:  # noqa: PT012
        (staging / "a.onnx").write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "export").iterdir()) == []


def test_a_temporary_of_a_killed_process_that_nobody_waited_for_is_swept(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from mvde.files import temporary_path; "
    script += "temporary_path(Path(sys.argv[1]) / 'a.onnx').touch(); print('there', flush=True); input()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1, "its process is alive"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_crash_between_two_renames_is_refused_by_the_manifest(
    graph: GraphArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = graph.path.parent
    rename = Path.replace

    def crash_at_manifest(path: Path, target: Path) -> Path:
        if path.suffix == ".json":
            raise OSError(errno.EIO, "I/O error")
        return rename(path, target)

    with pytest.raises(OutputError), staged_write(folder, "tiny") as staging:  # noqa: PT012
        (staging / graph.path.name).write_bytes(b"another graph")
        (staging / f"{graph.path.stem}.json").write_text("{}")
        monkeypatch.setattr(Path, "replace", crash_at_manifest)
    with pytest.raises(HashMismatchError):
        artifact.load_artifact(graph.path)
    assert leftovers(folder) == []
