"""Rejected manifests: names that are paths, corruption, hostile values. libmvde is tested on the same cases."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mvde import artifact, cli
from mvde.artifact import GraphArtifact, manifest_path, read_manifest
from mvde.errors import ManifestError
from mvde.manifest import manifest_from_bytes, with_digest

CASES = json.loads(Path(__file__).with_name("data").joinpath("manifest_cases.json").read_text(encoding="utf-8"))
NOBODY = 65534

Writer = Callable[..., GraphArtifact]


@pytest.fixture
def path(write_graph: Writer, tmp_path: Path) -> Path:
    """Path of a graph's manifest."""
    return manifest_path(write_graph(tmp_path / "export").path)


def changed(text: str, case: dict[str, Any]) -> str:
    """Text of a manifest after a case's change, with a matching digest."""
    if "replace" in case:
        old, new = case["replace"]
        assert old in text, case["name"]
        return with_digest(text.replace(old, new))
    plain, ((*parents, key), value) = json.loads(text), case["set"]
    place = plain
    for parent in parents:
        place = place[parent]
    place[key] = value
    return with_digest(json.dumps(plain, ensure_ascii=False))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_hostile_and_odd_manifests_have_their_verdict(path: Path, case: dict[str, Any]) -> None:
    text = path.read_text(encoding="utf-8")
    try:
        changed_text = changed(text, case)
    except ManifestError:
        assert case["verdict"] == "refused"  # without the digest it is not JSON
        changed_text = text.replace(*case["replace"])
    path.write_text(changed_text, encoding="utf-8")
    if case["verdict"] == "read":
        read_manifest(path)
        return
    with pytest.raises(ManifestError) as refused:
        read_manifest(path)
    assert "digest does not fit" not in str(refused.value) or "text after" in case["name"]


def test_the_digest_is_that_of_the_file_with_its_own_digits_as_zeros(path: Path) -> None:
    content = path.read_bytes()
    stated = json.loads(content)["digest"]
    assert list(json.loads(content))[-1] == "digest"
    assert content.count(stated.encode()) == 1
    assert hashlib.sha256(content.replace(stated.encode(), b"0" * 64)).hexdigest() == stated


def test_an_edit_by_hand_is_refused_until_the_digest_is_written_anew(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(path.read_text().replace('"opset": 20', '"opset": 21'))
    with pytest.raises(ManifestError, match=r"does not fit its content.*edited by hand.*mvde info --rewrite-digest .*"):
        read_manifest(path)
    assert cli.execute(["info", "--rewrite-digest", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    assert read_manifest(path).opset == 21


def test_a_digest_is_added_where_an_edit_lost_it(path: Path) -> None:
    plain = json.loads(path.read_text())
    del plain["digest"]
    path.write_text(json.dumps(plain))
    with pytest.raises(ManifestError, match=r"the key digest is missing.*--rewrite-digest"):
        read_manifest(path)
    assert artifact.rewrite_digest(path) == read_manifest(path)


def test_no_digest_is_written_for_what_is_no_manifest(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = path.read_text().replace('"stats_patch": 16', '"stats_patch": "16"')
    for wrong, reason in (
        (text, "stats_patch must be int"),
        ("{", "not valid JSON"),
        ("[]", "a manifest is an object"),
    ):
        path.write_text(wrong)
        assert cli.execute(["info", "--rewrite-digest", str(path)]) == 1
        assert reason in capsys.readouterr().err
        assert path.read_text() == wrong


def flipped(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and content of a file with one bit flipped, for every byte."""
    for at in range(len(content)):
        yield at, content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]


def test_no_flipped_bit_is_read(path: Path, build_tiny: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    engine = build_tiny(tmp_path) / "engine.json"
    for where in (path, engine):
        content = where.read_bytes()
        manifest_from_bytes(content, "it")
        for at, damaged in flipped(content):
            try:
                manifest_from_bytes(damaged, "it")
            except ManifestError:
                continue
            pytest.fail(f"bit {at % 8} of byte {at} of {where.name} was changed: {content[at - 20 : at + 20]!r}")


def spoil(kind: str, path: Path) -> None:
    """Replace ``path`` with something that must not block, be read to its end, or raise an unexpected error."""
    match kind:
        case "foreign":
            path.write_text('{"schema_version": 2, "kind": "engine"}')
        case "huge":
            with path.open("wb") as stream:
                stream.truncate(1 << 40)
        case "deep":
            path.write_text("[" * 200_000)
        case "digits":
            path.write_text("9" * 1_000_000)
        case "not text":
            path.write_bytes(bytes(range(256)))
        case "fifo":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)
        case "folder":
            path.mkdir()


SPOILS = ["foreign", "huge", "deep", "digits", "not text", "fifo", "endless", "loop", "folder"]


@pytest.mark.parametrize("kind", SPOILS)
def test_what_is_no_manifest_does_not_stop_the_look_up_of_others(
    write_graph: Writer, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = write_graph(tmp_path / "export")
    (tmp_path / "export" / "more").mkdir()
    spoil(kind, tmp_path / "export" / "aaa.json")
    spoil(kind, tmp_path / "export" / "more" / "engine.json")
    assert [found.path for found in artifact.list_graphs(tmp_path / "export")] == [graph.path]
    assert artifact.find_onnx("tiny", folder=tmp_path / "export").path == graph.path
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "export" / "aaa.json")
    assert cli.execute(["info", str(tmp_path / "export" / "aaa.json")]) == 1
    assert "unexpected" not in capsys.readouterr().err


def test_a_link_to_a_manifest_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(path)
    assert read_manifest(tmp_path / "link.json") == read_manifest(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to drop privileges")
def test_permission_errors_say_permission(path: Path, write_graph: Writer) -> None:
    folder = Path("/tmp") / f"mvde-permission-{os.getpid()}"  # pytest's temporary folder is closed to other users
    shutil.copytree(path.parent, folder)
    try:
        closed, other = folder / path.name, write_graph(folder, "other")
        for entry in (folder, *folder.iterdir()):
            entry.chmod(0o755 if entry.is_dir() else 0o644)
        closed.chmod(0)
        os.seteuid(NOBODY)
        with pytest.raises(ManifestError, match=r"tiny-32x48\.json: Permission denied"):
            read_manifest(closed)
        assert [found.path for found in artifact.list_graphs(folder)] == [other.path]
        os.seteuid(0)
        folder.chmod(0)
        os.seteuid(NOBODY)
        with pytest.raises(artifact.ArtifactError, match="Permission denied"):
            artifact.load_artifact(other.path)
        with pytest.raises(artifact.ArtifactError, match="Permission denied"):
            artifact.find_onnx(other.path)
    finally:
        os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)
