"""What statistics were computed with: the record of an output folder, compared before anything is added to it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mvde.errors import ArtifactError, UsageError
from mvde.files import atomic_write, read_small
from mvde.schema import parse_json

FILE_NAME = "mvde-stats.json"
FORMAT_VERSION = 1
DECODING = "mvde.image 1: upright by EXIF, 8-bit RGB, CMYK by its profile, first image of an MPO"
"""Rules by which pictures are decoded; the number changes when the pixels of a readable picture change."""
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """All that the rows depend on.

    ``graph_sha256`` is the fp32 graph's that the engine was built from: two compilations of one graph differ in bytes,
    so the engine's own hash is kept beside each shard and not here. ``camera`` is the rule that gives a picture its
    camera, ``calibration_sha256`` the hash of the calibration file. ``processor`` is the image processor whose patches
    have rows, as many as it cuts from a picture; there is no ``grid`` then.
    """

    name: str
    graph_sha256: str
    engine: str
    executed_precision: str
    resolution: tuple[int, int]
    grid: tuple[int, int] | None
    patch: int
    processor: str | None
    stats: tuple[str, ...]
    depth_kind: str
    unit: str
    fit: str
    camera: str
    calibration_sha256: str | None
    decoding: str
    dtype: str
    output_format: str
    shard_size: int
    limit: int | None

    @property
    def text(self) -> str:
        """Canonical JSON of the record."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @property
    def sha256(self) -> str:
        """Hash of the record, 64 hexadecimal digits."""
        return sha256(self.text.encode()).hexdigest()


def claim(folder: Path, wanted: Fingerprint) -> None:
    """Make the folder one of these statistics, or check that it is.

    Raises :class:`UsageError` for a folder that holds something else or statistics of another fingerprint, naming what
    differs.
    """
    is_other = folder.exists() and not folder.is_dir()
    # Listed once: another job of an array may claim the folder at this moment.
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()
    if FILE_NAME in names:
        check_same(read_record(folder), wanted, folder)
        return
    if is_other or names:
        raise UsageError(f"{folder} holds something else than mvde's statistics; give a new or empty folder: --out DIR")
    record = {"mvde_stats": FORMAT_VERSION, "sha256": wanted.sha256, "fingerprint": json.loads(wanted.text)}
    with atomic_write(folder / FILE_NAME) as path:
        path.write_text(json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """Fingerprint of a folder of statistics, as JSON gives it.

    Raises :class:`ArtifactError` if the folder has none or it is malformed.
    """
    path = folder / FILE_NAME
    try:
        plain = parse_json(read_small(path, _MAX_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{folder} is no folder of mvde stats: {FILE_NAME} cannot be read ({error})") from error
    if not isinstance(plain, dict) or plain.get("mvde_stats") != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} is of another version of mvde stats: expected mvde_stats {FORMAT_VERSION}; compute them again"
        )
    found = plain.get("fingerprint")
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} has no fingerprint; compute the statistics again into another folder")
    return found


def check_same(found: dict[str, Any], wanted: Fingerprint, folder: Path) -> None:
    """Raise :class:`UsageError` with what differs between a folder's fingerprint and the wanted one."""
    expected = json.loads(wanted.text)
    names = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    if names:
        texts = "; ".join(f"{name}: there {found.get(name)!r}, now {expected.get(name)!r}" for name in names)
        raise UsageError(f"{folder} holds statistics computed otherwise ({texts}); give another folder: --out DIR")
