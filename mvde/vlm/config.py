"""What the rows of ``depth_stats`` mean to a vision-language model, as stored in its ``config.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from mvde.contract import DepthKind
from mvde.errors import CheckpointError, ManifestError, UsageError
from mvde.schema import read_record
from mvde.stats import CONFIDENCE, DEFAULT_STATS, STATS
from mvde.vlm.sites import Site, member_of

CONFIG_KEY = "mvde_depth"
"""Key of a model's ``config.json`` that holds its :class:`DepthConfig`."""

RAYS = ("ray_x", "ray_y")
"""Columns of the viewing ray through a patch's centre: X/Z to the right and Y/Z downwards, dimensionless."""

COLUMNS = (*STATS, CONFIDENCE, *RAYS)
"""Every column that a row of ``depth_stats`` may have."""

FORMAT = 1
"""Version of the record in ``config.json``."""

_EVIDENCE = ("valid", "mean", "min", "max")  # positive for every patch that has a valid pixel


class CameraRule(str, Enum):
    """Which camera turned a map into the distances that the embedder was trained on."""

    FRAME = "frame"
    """Each picture's own camera; the canonical one where none was given."""
    CANONICAL = "canonical"
    """The depth model's canonical camera for every picture."""
    NONE = "none"
    """None: a sensor's or a file's distances, or a depth model without a canonical camera."""

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """Columns and origin of ``depth_stats``, and where their tokens enter a model.

    ``columns`` are names of :data:`COLUMNS`, in the order of the rows. ``depth_kind`` and ``unit`` are those of the
    depth model's manifest, ``graph_sha256`` its graph (``None`` for depth that no model predicted), and ``camera`` the
    rule by which metres were computed. ``hidden`` is the width of the embedder's hidden layer. ``site`` is ``None`` for
    the model type's own (:data:`mvde.vlm.SITES`); ``width`` is the tower's, or ``None`` for that of its configuration.
    """

    columns: tuple[str, ...] = DEFAULT_STATS
    depth_kind: DepthKind = DepthKind.METRIC
    unit: str = "m"
    hidden: int = 256
    camera: CameraRule = CameraRule.FRAME
    graph_sha256: str | None = None
    site: Site | None = None
    width: int | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for values that do not fit together."""
        object.__setattr__(self, "columns", check_columns(self.columns))
        object.__setattr__(self, "depth_kind", member_of(DepthKind, "depth_kind", self.depth_kind))
        object.__setattr__(self, "camera", member_of(CameraRule, "camera", self.camera))
        if self.unit not in (self.depth_kind.unit, "m"):
            raise UsageError(
                f"unit is {self.unit!r}, but {self.depth_kind} depth is in {self.depth_kind.unit!r} or 'm'"
            )
        for name in ("hidden", "width"):
            size = getattr(self, name)
            if size is not None and (not isinstance(size, int) or size < 1):
                raise UsageError(f"{name} must be a whole number of at least 1, but got {size!r}")
        if self.graph_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.graph_sha256):
            raise UsageError(f"graph_sha256 must be 64 hexadecimal digits in lower case, but got {self.graph_sha256!r}")
        if self.format != FORMAT:
            raise UsageError(f"format is {self.format!r}, but this version of mvde writes and reads {FORMAT}")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON types stored under ``mvde_depth``."""
        plain = asdict(self)
        plain["columns"] = list(self.columns)
        return {key: _json_type(value) for key, value in plain.items() if value is not None}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], where: str) -> DepthConfig:
        """Read the record of the file ``where``. Raises :class:`CheckpointError` naming the key that is wrong."""
        if plain.get("format", FORMAT) != FORMAT:
            raise CheckpointError(
                f"{where}: {CONFIG_KEY}.format is {plain['format']!r}, but this version of mvde reads {FORMAT}; "
                f"install the version of mvde that wrote it"
            )
        try:
            return read_record(cls, dict(plain), where, f"{CONFIG_KEY}.", "save the model again with mvde")
        except (ManifestError, UsageError) as error:
            text = str(error)
            raise CheckpointError(text if text.startswith(where) else f"{where}: {CONFIG_KEY}: {text}") from None


def check_columns(columns: Any) -> tuple[str, ...]:
    """Return ``columns`` as a tuple.

    Raises :class:`UsageError` for a name that is unknown or there twice, and if no column tells whether a patch has
    depth.
    """
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise UsageError(f"unknown columns {unknown}; a row of depth_stats can have {', '.join(COLUMNS)}")
    if len(set(names)) < len(names):
        raise UsageError(f"columns are {list(names)}: each may be there once")
    if not set(names) & set(_EVIDENCE):
        raise UsageError(
            f"columns {list(names)} do not tell whether a patch has depth; add one of {', '.join(_EVIDENCE)}"
        )
    return names


def evidence_column(columns: tuple[str, ...]) -> int:
    """Index of the column that is above 0 exactly for the patches that have depth."""
    return columns.index(next(name for name in _EVIDENCE if name in columns))


def _json_type(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _json_type(item) for key, item in value.items() if item is not None}
    return value
