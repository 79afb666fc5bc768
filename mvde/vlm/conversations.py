r"""Conversations about pictures in LLaVA's JSON, with the depth of each picture beside it.

A file is a list of records::

    {"id": "00012-1-relative", "image": "qa-images/00012-1.png", "depth": "qa-depth/00012.png",
     "conversations": [{"from": "human", "value": "<image>\nWhich box is nearer to the camera, red or blue?"},
                       {"from": "gpt", "value": "red"}],
     "mvde": {"kind": "relative", "cue": "counter", ...}}

Paths are relative to the file. ``depth`` and ``mvde`` are mvde's; other readers of the format ignore them, and records
without them are read as they are. Depth is a 16-bit PNG in millimetres or an ``.npy`` in metres, of the picture's size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvde.errors import DatasetError

IMAGE_TOKEN = "<image>"
_MOST_NAMES = 5
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


@dataclass(frozen=True)
class Turn:
    """A question without the image token, and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """One record: a picture, its depth if known, and what is said about it.

    ``facts`` is the record's ``"mvde"``, such as ``kind``, ``cue``, ``distance_m``, ``options`` and ``frame`` of a
    question by :mod:`mvde.vlm.questions`; empty for records of others. ``camera`` is (fx, fy, cx, cy) in pixels of the
    picture, where known.
    """

    name: str
    image: Path
    turns: tuple[Turn, ...]
    depth: Path | None = None
    camera: tuple[float, float, float, float] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def record(self, root: Path) -> dict[str, Any]:
        """Record of LLaVA's JSON, with paths relative to ``root``."""
        said: list[dict[str, str]] = []
        for number, turn in enumerate(self.turns):
            start = f"{IMAGE_TOKEN}\n" if number == 0 else ""
            said += [{"from": "human", "value": start + turn.question}, {"from": "gpt", "value": turn.answer}]
        found: dict[str, Any] = {"id": self.name, "image": self.image.relative_to(root).as_posix()}
        if self.depth is not None:
            found["depth"] = self.depth.relative_to(root).as_posix()
        if self.camera is not None:
            found["camera"] = list(self.camera)
        return {**found, "conversations": said, **({"mvde": self.facts} if self.facts else {})}


def write_conversations(path: Path, conversations: Iterable[Conversation]) -> int:
    """Write conversations as LLaVA's JSON, atomically; return their number.

    Raises OutputError if the disk is full or not writable.
    """
    from mvde.files import atomic_write  # imports NumPy, which the formats of questions do without

    lines = [json.dumps(one.record(path.parent), ensure_ascii=False) for one in conversations]
    with atomic_write(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return len(lines)


def read_conversations(path: str | Path, image_root: str | Path | None = None) -> list[Conversation]:
    """Read conversations about one picture each; records without a picture are left out.

    ``image_root`` is the folder of pictures and depth files, by default that of the file. Raises DatasetError for a
    file of another layout, for a conversation that does not refer to its picture exactly once, at its first question,
    and for missing pictures or depth files, which are counted and named.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    records = read_records(path)
    found = [_conversation(path, number, record, root) for number, record in enumerate(records) if "image" in record]
    if not found:
        raise DatasetError(f"{path} holds {len(records)} records, none with an image; there is nothing to look at")
    check_files(path, "picture", [one.image for one in found])
    check_files(path, "depth file", [one.depth for one in found if one.depth is not None])
    return found


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a JSON list, or JSON lines, of objects. Raises DatasetError for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetError(f"{path} cannot be read: {reason}; expected JSON with a list of records") from error
    try:
        if path.suffix == ".jsonl":
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            records = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}; expected a list of records") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DatasetError(f"{path} holds {type(records).__name__}, not a list of records (objects with named fields)")
    if not records:
        raise DatasetError(f"{path} holds an empty list; expected at least one record")
    return records


def check_files(path: Path, what: str, files: Sequence[Path]) -> None:
    """Raise DatasetError, counting and naming them, if files that ``path`` refers to are missing."""
    missing = [file for file in dict.fromkeys(files) if not file.is_file()]
    if not missing:
        return
    more = f" and {len(missing) - _MOST_NAMES} more" if len(missing) > _MOST_NAMES else ""
    raise DatasetError(
        f"{len(missing)} of the {len(set(files))} {what}s that {path} refers to are missing: "
        f"{', '.join(str(file) for file in missing[:_MOST_NAMES])}{more}; give the folder that holds them with "
        "--image-folder, or write the file again"
    )


def _conversation(path: Path, number: int, record: dict[str, Any], root: Path) -> Conversation:
    def wrong(reason: str) -> DatasetError:
        return DatasetError(f"{path}: record {number} (id {record.get('id', 'missing')!r}) {reason}")

    image, depth, facts, camera = (record.get(key) for key in ("image", "depth", "mvde", "camera"))
    if not isinstance(image, str):
        raise wrong(f"has {type(image).__name__} as image; expected the path of one picture")
    if not isinstance(depth, str | None):
        raise wrong(f"has {type(depth).__name__} as depth; expected the path of one file")
    if not isinstance(facts, dict | None):
        raise wrong(f'has {type(facts).__name__} as "mvde"; expected an object')
    return Conversation(
        str(record.get("id", number)),
        root / image,
        _turns(record.get("conversations"), wrong),
        None if depth is None else root / depth,
        None if camera is None else _camera(camera, wrong),
        facts or {},
    )


def _turns(said: Any, wrong: Callable[[str], DatasetError]) -> tuple[Turn, ...]:
    if not isinstance(said, list) or not all(
        isinstance(part, dict) and isinstance(part.get("value"), str) and part.get("from") in _ROLES for part in said
    ):
        raise wrong('has no "conversations": expected a list of {"from": "human" or "gpt", "value": text}')
    roles = [_ROLES[part["from"]] for part in said]
    if not roles or roles != ["human", "gpt"] * (len(roles) // 2):
        raise wrong(f"is said by {', '.join(roles) or 'nobody'}; expected human and gpt in turns, with gpt last")
    counts = [part["value"].count(IMAGE_TOKEN) for part in said]
    if counts[0] != 1 or sum(counts) != 1:
        raise wrong(
            f"has {counts[0]} {IMAGE_TOKEN} tokens in its first question and {sum(counts[1:])} in the rest; expected "
            "one in the first question, for its one picture"
        )
    texts = [part["value"].replace(IMAGE_TOKEN, "").strip() for part in said]
    return tuple(Turn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True))


def _camera(values: Any, wrong: Callable[[str], DatasetError]) -> tuple[float, float, float, float]:
    if not isinstance(values, list) or len(values) != 4 or not all(isinstance(value, int | float) for value in values):
        raise wrong(f"has the camera {values!r}; expected [fx, fy, cx, cy] in pixels of its picture")
    fx, fy, cx, cy = (float(value) for value in values)
    return fx, fy, cx, cy
