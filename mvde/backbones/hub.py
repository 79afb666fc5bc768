"""Loading of pretrained weights from a local directory, the hub's cache, or the hub, with one clear error."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
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


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers: a checkpoint with further heads prints a line for each of their weights."""
    from transformers.utils import logging

    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


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
    name: str, default: tuple[Sequence[float], Sequence[float]] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation (RGB, pixels in [0, 1]) that the model was trained with.

    Read from ``preprocessor_config.json`` (or ``processor_config.json``) of a local directory or the hub; values that
    the file leaves out, and a directory without file, take ``default``. Raises :class:`CheckpointError` where that is
    None.
    """
    path, given = _preprocessor(name)
    if given is None and default is None:
        raise CheckpointError(
            f"{path} does not exist, so the mean and standard deviation of the tower's pixels are unknown; copy the "
            f"file of the checkpoint beside its weights"
        )
    given = given or {}
    if not given.get("do_normalize", True):
        given = {**given, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    mean: Any = given.get("image_mean", default and default[0])
    std: Any = given.get("image_std", default and default[1])
    if not (_are_three(mean) and _are_three(std) and all(value > 0 for value in std)):
        raise CheckpointError(f"{path}: image_mean and image_std must be three numbers each, but got {mean} and {std}")
    rescale = given.get("rescale_factor", 1 / 255) if given.get("do_rescale", True) else 1.0
    if not isinstance(rescale, (int, float)) or not rescale > 0:
        raise CheckpointError(f"{path}: rescale_factor must be a positive number, but got {rescale!r}")
    scale = 255 * rescale
    if abs(scale - 1) < 1e-6:  # the file's digits of 1 / 255
        return tuple(mean), tuple(std)
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def check_safetensors(name: str) -> None:
    """Raise :class:`CheckpointError` if the local directory ``name`` holds pickled weights only."""
    path = Path(name)
    pickled = sorted(path.glob("pytorch_model*.bin")) if path.is_dir() else []
    if pickled and not any(path.glob("*.safetensors")):
        raise CheckpointError(
            f"{pickled[0]} is a pickle, which can run code when it is read; convert it to model.safetensors "
            f"(from_pretrained and save_pretrained of transformers, where you trust it)"
        )


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


def _preprocessor(name: str) -> tuple[Path, dict[str, Any] | None]:
    """Path of the preprocessor's file, and its JSON; None if a local directory has none."""
    files = ("preprocessor_config.json", "processor_config.json")
    if Path(name).is_dir():
        path = next((Path(name) / file for file in files if (Path(name) / file).is_file()), Path(name) / files[0])
    else:
        path = load_pretrained(name, lambda **where: _download(name, files[0], **where), "give a local directory")
    given = read_json(path) if path.is_file() else None
    inner = given.get("image_processor") if given else None
    return path, inner if isinstance(inner, dict) else given


def _download(name: str, file: str, local_files_only: bool) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, file, local_files_only=local_files_only))


def _are_three(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and len(values) == 3 and all(isinstance(v, (int, float)) for v in values)


def _query_hub(name: str) -> None:
    from huggingface_hub import HfApi

    HfApi().model_info(name, timeout=_TIMEOUT_S)


def _failure(name: str, error: Exception, way_out: str) -> CheckpointError:
    lines = str(error).strip().splitlines()
    return CheckpointError(f"cannot load pretrained weights of {name!r} ({lines[0] if lines else error!r}); {way_out}")
