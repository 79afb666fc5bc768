"""The patches that a model's own processor cuts, for ``mvde stats --processor``."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.bulk.patches import PatchLayout, PatchRows
from mvde.errors import MissingDependencyError, UsageError
from mvde.vlm.rows import PictureDepth, depth_columns, rows_of_maps
from mvde.vlm.stored import geometry_digest, maps_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera
    from mvde.manifest import EngineManifest
    from mvde.runtime.depth import DepthRuntime
    from mvde.vlm.geometry import Geometry
    from mvde.vlm.processor import DepthProcessor

_MAX_GEOMETRIES = 1024
"""Sizes of pictures whose geometry is kept: a few kB each, and a replay takes up to tenths of a second."""
_QUESTION = "?"


class ProcessorPatches:
    """Rows for exactly the patches that a model of transformers sees, as a :class:`DepthProcessor` makes them.

    ``folder`` is the model's: its processor, and its ``config.json`` for the patch size of the tower where the image
    processor does not cut patches itself. The processor is called with a chat of one picture, as in training; one
    without a chat template by its image processor alone. Nothing is downloaded, and no code of the folder is run.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).absolute()
        self._geometries: OrderedDict[tuple[int, int], Geometry] = OrderedDict()
        self._prepare: Callable[[], None] = _nothing

    def layout(self, manifest: EngineManifest, columns: Sequence[str]) -> PatchLayout:
        """Layout of rows of any number.

        Raises :class:`UsageError` for a folder without a processor whose geometry can be replayed, or a column of the
        network's confidence.
        """
        depth_columns(columns)
        processor = self._processor
        geometry = self._geometry(np.zeros((*manifest.resolution, 3), np.uint8))
        image_processor = processor.processor
        image_processor = getattr(image_processor, "image_processor", image_processor)
        settings = json.dumps(image_processor.to_dict(), sort_keys=True, default=str)
        digest = hashlib.sha256(settings.encode()).hexdigest()
        names = dict.fromkeys(type(one).__name__ for one in (processor.processor, image_processor))
        return PatchLayout(
            None, geometry.patch_size, f"{' '.join(names)} {digest}, patches of {geometry.patch_size} pixels"
        )

    def rows(
        self, runtime: DepthRuntime, image: NDArray[np.uint8], fit: str, columns: Sequence[str], camera: Camera | None
    ) -> PatchRows:
        """Statistics of the depth of the whole picture, sampled where the tower sees it."""
        geometry = self._geometry(image)
        result = runtime.infer(image, fit, camera=camera)
        rows = rows_of_maps(geometry, [PictureDepth(result.depth, result.camera)], columns)
        places = maps_of(geometry, 0)
        patch = geometry.patch_size
        grids = {(geometry.maps[place].size[0] // patch, geometry.maps[place].size[1] // patch) for place in places}
        stats = np.concatenate([rows[place] for place in places])
        return PatchRows(stats, grids.pop() if len(grids) == 1 else None, len(places), geometry_digest(geometry, 0))

    def __getstate__(self) -> dict[str, Any]:
        """State for workers, which load the processor themselves."""
        return {"_folder": self._folder, "_geometries": OrderedDict(), "_prepare": _prepare_worker}

    def _geometry(self, image: NDArray[np.uint8]) -> Geometry:
        """Geometry of pictures of this one's size, traced once."""
        size = (image.shape[0], image.shape[1])
        found = self._geometries.get(size)
        if found is None:
            found = self._processor.geometry([image], **self._options)
            self._geometries[size] = found
            if len(self._geometries) > _MAX_GEOMETRIES:
                self._geometries.popitem(last=False)
        self._geometries.move_to_end(size)
        return found

    @cached_property
    def _processor(self) -> DepthProcessor:
        from mvde.vlm.processor import DepthProcessor

        self._prepare()
        processor = _load(self._folder)
        return DepthProcessor(processor, patch_size=_patch_of(self._folder, processor))

    @cached_property
    def _options(self) -> dict[str, Any]:
        """Options of a call with one picture: the text of a chat, where the processor takes text."""
        from mvde.vlm.conversations_prompts import prompt_format

        processor = self._processor
        if not hasattr(processor.processor, "tokenizer"):
            return {"return_tensors": "pt"}
        format_ = prompt_format(processor)
        text = format_.prompt([], _QUESTION)
        return {"text": [text], "return_tensors": "pt", **format_.options(text)}


def _load(folder: Path) -> Any:
    """Processor of a folder, or its image processor alone. Raises :class:`UsageError` if it holds neither."""
    try:
        from transformers import AutoImageProcessor, AutoProcessor
    except ImportError as error:
        raise MissingDependencyError.for_extra("transformers", "vlm", "mvde stats --processor") from error
    if not folder.is_dir():
        raise UsageError(f"--processor takes the folder of a model of transformers, but {folder} is none")
    reasons = []
    for kind in (AutoProcessor, AutoImageProcessor):
        try:
            found = kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # noqa: BLE001 - any of the libraries below it
            reasons.append(" ".join(str(error).split())[:200])
            continue
        if not _is_askable(found):
            found = getattr(found, "image_processor", None)
        if found is not None:
            return found
    raise UsageError(
        f"{folder} holds no processor with an image processor ({reasons[-1] if reasons else 'only a tokenizer'}); "
        "give the folder of a vision-language model, with preprocessor_config.json or processor_config.json"
    )


def _is_askable(processor: Any) -> bool:
    """Whether a processor can be called as in training; an image processor always can."""
    from mvde.vlm.conversations_prompts import prompt_format

    if not hasattr(processor, "image_processor"):
        return hasattr(processor, "image_mean") or hasattr(processor, "do_resize")
    try:
        prompt_format(processor)
    except (UsageError, AttributeError):
        return False
    return True


def _patch_of(folder: Path, processor: Any) -> int | None:
    """Patch size of the tower of a folder's ``config.json``; ``None`` where the processor has one, or nothing says."""
    from transformers import AutoConfig

    image_processor = getattr(processor, "image_processor", processor)
    if hasattr(image_processor, "merge_size") or not (folder / "config.json").is_file():
        return None
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # any of the libraries below it
        raise UsageError(f"{folder / 'config.json'} cannot be read: {' '.join(str(error).split())[:200]}") from error
    found = getattr(getattr(config, "vision_config", config), "patch_size", None)
    return found if isinstance(found, int) else None


def _nothing() -> None:
    """Change nothing in the process of a caller."""


def _prepare_worker() -> None:
    """Keep transformers' notes off the terminal, and each of many workers on its one core."""
    import torch

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
