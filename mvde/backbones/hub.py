"""Loading of pretrained weights from a local directory, the hub's cache, or the hub, with one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mvde.errors import CheckpointError, MvdeError

Loaded = TypeVar("Loaded")

_TIMEOUT_S = 10.0


def load_pretrained(name: str, load: Callable[..., Loaded], way_out: str) -> Loaded:
    """Return ``load(local_files_only=...)``, from a directory or the cache first, then from the hub.

    The hub is probed once before anything is downloaded, since its client retries each file for minutes. Raises
    :class:`CheckpointError` with the reason and ``way_out``.
    """
    try:
        return load(local_files_only=True)
    except MvdeError:
        raise
    except Exception as error:  # the hub's HTTP libraries share no base class
        if Path(name).is_dir():
            raise _failure(name, error, way_out) from error
    try:
        _query_hub(name)
        return load(local_files_only=False)
    except MvdeError:
        raise
    except Exception as error:
        raise _failure(name, error, way_out) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in ``path``. Raises :class:`CheckpointError` naming the file."""
    try:
        given = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(given, dict):
        raise CheckpointError(f"{path} holds {type(given).__name__}, not a JSON object")
    return given


def image_normalization(
    name: str, default: tuple[Sequence[float], Sequence[float]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation (RGB, pixels in [0, 1]) that the model was trained with.

    Read from ``preprocessor_config.json`` of a local directory; ``default`` elsewhere.
    """
    path = Path(name) / "preprocessor_config.json"
    given = read_json(path) if path.is_file() else {}
    mean, std = tuple(given.get("image_mean", default[0])), tuple(given.get("image_std", default[1]))
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise CheckpointError(f"{path}: image_mean and image_std must be three numbers each, but got {mean} and {std}")
    return mean, std


def check_complete(name: str, loading_info: dict[str, Any]) -> None:
    """Raise :class:`CheckpointError` unless every weight was loaded.

    transformers initialises missing weights randomly.
    """
    missing = sorted(loading_info.get("missing_keys") or ())
    if missing:
        raise CheckpointError(
            f"{name!r} lacks {len(missing)} of the model's weights, the first being {missing[0]}; "
            f"is it a checkpoint of another model?"
        )


def _query_hub(name: str) -> None:
    from huggingface_hub import HfApi

    HfApi().model_info(name, timeout=_TIMEOUT_S)


def _failure(name: str, error: Exception, way_out: str) -> CheckpointError:
    lines = str(error).strip().splitlines()
    return CheckpointError(f"cannot load pretrained weights of {name!r} ({lines[0] if lines else error!r}); {way_out}")
