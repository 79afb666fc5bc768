"""Pictures in all the forms that bulk work reads, and a way to compute their statistics."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.bulk.inputs import Shard
from mvde.bulk.local import Failure
from mvde.bulk.work import ShardReport, ShardWorker, Work, open_engine

pytest.importorskip("pyarrow")
pytest.importorskip("openvino")


def encoded(seed: int, form: str = "PNG", mode: str = "RGB") -> bytes:
    """A small random picture as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed % 7, 30 + seed % 5, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form)
    return stream.getvalue()


def _write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def in_this_process(work: Work, shards: Iterable[Shard]) -> Iterator[ShardReport | Failure]:
    """A runner without processes, for what does not depend on them."""
    worker = ShardWorker(work, open_engine(work.engine))
    try:
        for shard in shards:
            yield worker.run(shard)
    finally:
        worker.close()


@pytest.fixture(scope="session")
def write_tar() -> Callable[[Path, dict[str, bytes]], None]:
    """Writer of a tar with members by name."""
    return _write_tar


@pytest.fixture(scope="session")
def contents() -> dict[str, bytes]:
    """Twelve pictures by key, in two folders; one is no picture, one is grey, one is CMYK."""
    found = {f"{'ab'[n % 2]}/{n:03d}.png": encoded(n) for n in range(12)}
    found["a/004.png"] = b"no picture"
    found["b/005.png"] = encoded(5, mode="L")
    found["a/006.png"] = encoded(6, "JPEG", "CMYK")
    return dict(sorted(found.items()))


@pytest.fixture(scope="session")
def forms(contents: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The same pictures as inputs of every form; a LLaVA list and a text list come with ``--image-root``."""
    import pyarrow as pa
    from pyarrow import parquet

    root = tmp_path_factory.mktemp("forms")
    for key, content in contents.items():
        (root / "folder" / key).parent.mkdir(parents=True, exist_ok=True)
        (root / "folder" / key).write_bytes(content)
    members = ((key, key.replace(".png", ".json")) for key in contents)
    _write_tar(root / "tarred.tar", {name: contents.get(name, b"{}") for pair in members for name in pair})
    images = [{"bytes": content, "path": key} for key, content in contents.items()]
    parquet.write_table(pa.table({"id": list(contents), "image": images}), root / "rows.parquet")
    talks = [{"id": n, "image": key, "conversations": []} for n, key in enumerate([*contents, *contents])]
    (root / "talks.json").write_text(json.dumps([*talks, {"id": -1, "conversations": []}]))
    (root / "talks.jsonl").write_text("\n".join(json.dumps(talk) for talk in talks))
    (root / "list.txt").write_text("\n".join(contents))
    names = {"tar": "tarred.tar", "parquet": "rows.parquet", "folder": "folder"}
    lists = {"llava": "talks.json", "jsonl": "talks.jsonl", "txt": "list.txt"}
    return {
        **{form: [str(root / name)] for form, name in names.items()},
        **{form: [str(root / name), str(root / "folder")] for form, name in lists.items()},
    }


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[bytes, int]]]:
    """Content and time of every file of a folder, hidden ones too."""
    return lambda folder: {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()
    }
