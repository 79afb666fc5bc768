"""Pictures in all the forms that bulk work reads, and a way to compute their statistics."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow")
pytest.importorskip("openvino")


def encoded(seed: int, form: str = "PNG", mode: str = "RGB") -> bytes:
    """A small random picture as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed % 7, 30 + seed % 5, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form)
    return stream.getvalue()


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
    with tarfile.open(root / "tarred.tar", "w") as tar:
        for key, content in contents.items():
            for name, data in ((key, content), (key.replace(".png", ".json"), b"{}")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
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
