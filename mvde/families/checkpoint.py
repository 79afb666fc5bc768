"""Files of a third-party model: configuration, preprocessing and weights, in a folder or in the hub's cache.

Only JSON and safetensors are read, and no code of a model is run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvde.backbones.hub import read_json
from mvde.errors import CheckpointError, UsageError
from mvde.files import sha256_file

_PATTERNS = ("*.json", "*.safetensors", "README.md")
_TIMEOUT_S = 10.0
_COMMIT = re.compile("[0-9a-f]{40}")
_LICENCE = re.compile(r"^license:[ \t]*['\"]?([A-Za-z0-9.+_ -]{1,64}?)['\"]?[ \t]*$", re.MULTILINE)
_MAX_README_BYTES = 1 << 20
_UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_WAY_OUT = "give a folder with the model's config.json, preprocessor_config.json and .safetensors"


@dataclass(frozen=True)
class ModelFolder:
    """A model's files at ``path``; ``name`` is a hub name, or the bare name of a local folder.

    ``config`` and ``processor`` are the parsed JSON files, ``processor`` empty where there is none.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    weights: tuple[Path, ...]
    revision: str | None = None
    licence: str | None = None
    _saved_as: str = field(default="", repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which the model may be listed: the one given, and the one it was saved under."""
        return tuple(name for name in (self.name, self._saved_as) if name)

    @property
    def graph_name(self) -> str:
        """Default name of the model's graphs: the last part of its name, with characters that a file name can have."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name.split("/")[-1]).strip(".-_") or "model"

    @property
    def model_type(self) -> str:
        """``model_type`` of the configuration."""
        return str(self.config["model_type"])

    def sha256(self) -> str:
        """SHA-256 of the weights' file; of the hexadecimal digests in name order where there are several."""
        digests = [sha256_file(path) for path in self.weights]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def open_model(name: str, revision: str | None = None) -> ModelFolder:
    """Open a folder, or a hub name from the cache or the hub, in this order.

    Raises :class:`CheckpointError` if files are missing or unsafe, :class:`UsageError` for a revision of a folder.
    """
    given = Path(name).expanduser()
    if given.is_dir():
        if revision is not None:
            raise UsageError(f"{name} is a folder, which has no revision; leave --revision out")
        return _read(given.resolve(), given.resolve().name, None)
    if given.exists():
        raise CheckpointError(f"{name} is a file, not a model of transformers; {_WAY_OUT}, or a hub name")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or ".." in name or name.startswith("."):
        raise CheckpointError(f"there is no folder {name}, and it is not a hub name (OWNER/MODEL); {_WAY_OUT}")
    path = _snapshot(name, revision)
    return _read(path, name, path.name if _COMMIT.fullmatch(path.name) else None)


def _snapshot(name: str, revision: str | None) -> Path:
    """Folder of a hub name in the cache; what is missing there is downloaded."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        from mvde.errors import MissingDependencyError

        raise MissingDependencyError.for_extra("huggingface_hub", "model", "loading a model by its hub name") from error
    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # noqa: BLE001 - not in the cache; the hub's errors share no base class
        cached = None
    if cached is not None and (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
        return cached
    try:
        _check_on_hub(name, revision)
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS)))
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"cannot load {name!r}: {_reason(error)}; {_WAY_OUT}") from error


def _check_on_hub(name: str, revision: str | None) -> None:
    """Ask the hub once, before anything is downloaded: its client retries each file for minutes."""
    from huggingface_hub import HfApi

    listed = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT_S)
    files = [entry.rfilename for entry in listed.siblings or ()]
    if files and not any(file.endswith(".safetensors") for file in files):
        raise CheckpointError(f"{name!r} has no .safetensors on the hub; {_WAY_OUT}")


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    match kind:
        case "GatedRepoError":
            return "it is gated; accept its terms on its page and run `hf auth login`"
        case "RepositoryNotFoundError":
            return "the hub has no such model, or it is private"
        case "RevisionNotFoundError":
            return "the hub has no such revision"
        case "OfflineModeIsEnabled" | "LocalEntryNotFoundError":
            return "it is not in the hub's cache, and the hub cannot be asked (offline)"
    lines = str(error).strip().splitlines()
    return f"it is not in the hub's cache, and the hub did not answer ({lines[0] if lines else kind})"


def _read(path: Path, name: str, revision: str | None) -> ModelFolder:
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{name!r} has no config.json, so it is not a model of transformers; {_WAY_OUT}")
    config = read_json(path / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{path / 'config.json'} has no model_type, so it is not a model of transformers")
    return ModelFolder(
        path=path,
        name=name,
        config=config,
        processor=_processor(path),
        weights=_weights(path, name),
        revision=revision,
        licence=_licence(path / "README.md"),
        _saved_as=str(config.get("_name_or_path") or ""),
    )


def _weights(path: Path, name: str) -> tuple[Path, ...]:
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").is_file():
        return (path / "model.safetensors",)
    if index.is_file():
        shards = sorted({str(shard) for shard in (read_json(index).get("weight_map") or {}).values()})
        absent = [shard for shard in shards if Path(shard).name != shard or not (path / shard).is_file()]
        if not shards or absent:
            raise CheckpointError(f"{name!r} lacks the weights {', '.join(absent) or index.name}; copy them, too")
        return tuple(path / shard for shard in shards)
    unsafe = sorted(found.name for pattern in _UNSAFE_WEIGHTS for found in path.glob(pattern))
    if unsafe:
        raise CheckpointError(
            f"{name!r} has its weights only as {unsafe[0]}, which can run code when it is loaded; convert it to "
            "model.safetensors with transformers: from_pretrained(...) in a sandbox, then save_pretrained(FOLDER)"
        )
    raise CheckpointError(f"{name!r} has no model.safetensors; {_WAY_OUT}")


def _processor(path: Path) -> dict[str, Any]:
    """Image processor's settings, from ``preprocessor_config.json`` or a part of ``processor_config.json``."""
    found = []
    if (path / "preprocessor_config.json").is_file():
        found.append(read_json(path / "preprocessor_config.json"))
    if (path / "processor_config.json").is_file():
        part = read_json(path / "processor_config.json").get("image_processor")
        found += [part] if isinstance(part, dict) else []
    if len(found) == 2 and any(found[0].get(key) != value for key, value in found[1].items() if key in found[0]):
        raise CheckpointError(
            f"preprocessor_config.json and processor_config.json in {path} contradict each other; remove the one that "
            "is not the model's"
        )
    return found[0] if found else {}


def _licence(readme: Path) -> str | None:
    """Licence in the header of a model's page."""
    if not readme.is_file() or readme.stat().st_size > _MAX_README_BYTES:
        return None
    parts = readme.read_text(encoding="utf-8", errors="replace").split("---")
    match = _LICENCE.search(parts[1]) if len(parts) > 2 and not parts[0].strip() else None
    return match[1] if match else None
