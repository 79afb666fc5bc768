"""A vision-language model's own processor, plus the depth of exactly the patches that its tower will see."""

from __future__ import annotations

import copy
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import UsageError
from mvde.image import check_image, read_image
from mvde.runtime.frame_camera import camera_of
from mvde.stats import DEFAULT_STATS
from mvde.vlm.batch import DEPTH_STATS, DepthBatch
from mvde.vlm.config import DepthConfig
from mvde.vlm.geometry import Geometry, leaves, nested_sizes, size_of, trace
from mvde.vlm.rows import AnyDepth, depth_columns, depth_rows
from mvde.vlm.sources import DepthSource, Picture, given_map, source_of

if TYPE_CHECKING:
    from mvde.camera import Camera
    from mvde.runtime.depth import DepthRuntime

    CameraOf = Callable[[tuple[int, int]], Camera | None]
    CameraGiven = Camera | CameraOf | Sequence[Camera | CameraOf | None] | None

_LOG = logging.getLogger(__name__)
_MAX_GEOMETRIES = 256
"""Geometries that are kept: a few kB each, and a replay takes tenths of a second."""


class DepthProcessor:
    """The processor of a model of transformers, whose output also has ``depth_stats``.

    Everything else in the output is what ``processor`` gives, bit for bit, and its other attributes and methods are
    available here. Crops, padding, tiles and orders of patches are those of the processor, found by replaying its call
    (:mod:`mvde.vlm.geometry`); depth is computed once, on the whole picture.

    ``source`` is a :class:`DepthRuntime`, a folder of depth files or of ``mvde stats``, another :class:`DepthSource`
    (:class:`StoredStats` where pictures are named relative to a root), or ``None`` where each call gives depth.
    ``patch_size`` is that of the model's tower, unless the processor cuts patches itself. ``columns`` are those of the
    rows, ``camera`` that of the pictures or a function from their size (H, W) to it.
    :meth:`for_model` takes patch size and columns from a model.
    """

    def __init__(
        self,
        processor: Any,
        source: DepthRuntime | DepthSource | str | Path | None = None,
        *,
        patch_size: int | None = None,
        columns: Sequence[str] = DEFAULT_STATS,
        camera: Camera | CameraOf | None = None,
    ) -> None:
        self.processor = processor
        self.source = source_of(source)
        self.patch_size = patch_size if patch_size is not None else getattr(processor, "patch_size", None)
        self.columns = depth_columns(columns)
        self._camera = camera
        self._geometries: OrderedDict[Any, Geometry] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def for_model(
        cls,
        model: Any,
        processor: Any,
        source: DepthRuntime | DepthSource | str | Path | None = None,
        *,
        camera: Camera | CameraOf | None = None,
    ) -> DepthProcessor:
        """Make the processor of a model that :func:`mvde.vlm.add_depth` gave depth.

        Raises :class:`UsageError` for a model without depth, or a source whose numbers mean something else than those
        that the model takes.
        """
        from mvde.vlm.attach import depth_config

        config = depth_config(model)
        made = cls(processor, source, patch_size=_tower_patch(model), columns=config.columns, camera=camera)
        given, expected = made.source.depth_kind, config.depth_kind
        are_metres = given.unit == expected.unit == "m"  # for the picture's camera, whichever way they were computed
        if given is not expected and not are_metres:
            raise UsageError(
                f"the model takes depth of kind {expected}, but this source gives {given}; use a depth model of that "
                "kind, or train with this one"
            )
        if config.graph_sha256 not in (None, made.source.graph_sha256):
            _LOG.warning(
                "the model was trained on depth of the graph %s…, but this source's is %s; its errors may differ",
                str(config.graph_sha256)[:12],
                made.source.graph_sha256 or "no graph",
            )
        return made

    def config(self, **others: Any) -> DepthConfig:
        """Configuration of :func:`mvde.vlm.add_depth` for these columns and this source; ``others`` are its fields."""
        source = self.source
        return DepthConfig(
            columns=self.columns,
            depth_kind=source.depth_kind,
            unit=source.depth_kind.unit,
            camera=source.camera_rule,
            graph_sha256=source.graph_sha256,
            **others,
        )

    def __call__(
        self, images: Any = None, text: Any = None, *, depth: Any = None, camera: CameraGiven = None, **options: Any
    ) -> Any:
        """Call the processor, and add ``depth_stats`` if there are images.

        ``images`` is a picture or nested lists of pictures as the processor takes them: of Pillow, RGB arrays
        (H, W, 3) uint8, or paths. ``depth`` is that of each picture, in the same order: a map (H, W) in the source's
        unit, a file, or ``None`` for a picture without; default: that of the source. ``camera`` is that of all
        pictures, a function from their size, or a list of these for each; default: the processor's.

        The output is a :class:`DepthBatch`. Its ``depth_stats`` are a tensor if ``pixel_values`` are one, else an
        array, float32: (tiles, N, S), (images, tiles, N, S), (images, patches, S) or (patches, S), as ``pixel_values``
        are arranged. A patch without depth is 0.

        Raises :class:`UsageError` for depth of another size than its picture, a processor whose geometry cannot be
        replayed, and videos; :class:`ImageError` and :class:`DatasetError` for unreadable files.
        """
        if options.get("videos") is not None:
            raise UsageError("depth of videos is not supported; give their frames as images")
        if text is not None:
            options["text"] = text
        if images is None:
            if depth is not None:
                raise UsageError("depth was given without images; give both, or neither")
            return self.processor(**options)
        pictures, images = _opened(images)
        return self._with_depth(pictures, depth, camera, lambda processor: processor(images=images, **options))

    def apply_chat_template(
        self, conversation: Any, *, depth: Any = None, camera: CameraGiven = None, **options: Any
    ) -> Any:
        """Call the processor's own method; with ``tokenize=True``, add ``depth_stats`` of the images in the chat.

        ``conversation`` and ``options`` are those of the processor, ``depth`` and ``camera`` as in a call. The tokens
        are returned as a dict (``return_dict=True``). Raises :class:`UsageError` as a call does.
        """
        if not options.get("tokenize"):
            return self.processor.apply_chat_template(conversation, **options)
        pictures, opened = _opened_chat(conversation)
        options["return_dict"] = True
        if not pictures:
            return self.processor.apply_chat_template(conversation, **options)
        return self._with_depth(
            pictures, depth, camera, lambda processor: processor.apply_chat_template(opened, **options)
        )

    def geometry(self, images: Any, **options: Any) -> Geometry:
        """Where what the tower sees comes from, for a call with these images and options of the processor."""
        pictures, images = _opened(images)
        processor, calls = _recording(self.processor)
        processor(images=images, **options)
        return self._geometry(calls, pictures)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the outputs that a model takes."""
        return [*self.processor.model_input_names, DEPTH_STATS]

    def __getattr__(self, name: str) -> Any:
        """Look up everything else in the processor."""
        if name == "processor":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.processor, name)

    def __getstate__(self) -> dict[str, Any]:
        """State for workers of a loader."""
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _with_depth(
        self, pictures: Sequence[Picture], depth: Any, camera: CameraGiven, call: Callable[[Any], Any]
    ) -> Any:
        """Output of a ``call`` of the processor with these pictures, and their ``depth_stats``."""
        maps = self._maps(pictures, depth, camera)
        processor, calls = _recording(self.processor)
        output = call(processor)
        geometry = self._geometry(calls, pictures)
        output[DEPTH_STATS] = _like(output["pixel_values"], depth_rows(geometry, maps, self.columns), geometry)
        output.__class__ = DepthBatch
        return output

    def _maps(self, pictures: Sequence[Picture], depth: Any, camera: CameraGiven) -> list[AnyDepth]:
        """Depth of each picture."""
        cameras = self._cameras(pictures, camera)
        if depth is None:
            return [self.source.depth_of(*one) for one in zip(pictures, cameras, strict=True)]
        maps = leaves(depth)
        if len(maps) != len(pictures):
            raise UsageError(
                f"{len(pictures)} pictures were given, but {len(maps)} depth maps; give one for each, None for a "
                "picture without"
            )
        return [given_map(*one) for one in zip(maps, pictures, cameras, strict=True)]

    def _cameras(self, pictures: Sequence[Picture], camera: CameraGiven) -> list[Camera | None]:
        """Camera of each picture. Raises :class:`UsageError` for one of another size."""
        given: Any = self._camera if camera is None else camera
        cameras = list(given) if isinstance(given, (list, tuple)) else [given] * len(pictures)
        if len(cameras) != len(pictures):
            raise UsageError(f"{len(pictures)} pictures were given, but {len(cameras)} cameras; give one for each")
        return [camera_of(one, picture.size) for one, picture in zip(cameras, pictures, strict=True)]

    def _geometry(self, calls: Sequence[_Call], pictures: Sequence[Picture]) -> Geometry:
        """Geometry of the call that was recorded, traced once for pictures of the same sizes."""
        if len(calls) != 1 or [size_of(one) for one in leaves(calls[0].images)] != [one.size for one in pictures]:
            raise UsageError(
                f"{type(self.processor).__name__} does not hand its pictures to its image processor as they are, in "
                f"one call ({len(calls)} calls); compute {DEPTH_STATS} yourself for this processor"
            )
        call = calls[0]
        key = nested_sizes(call.images), repr(sorted(call.options.items()))
        with self._lock:
            found = self._geometries.get(key)
        if found is None:
            found = trace(call.image_processor, call.images, call.options, self.patch_size)
        with self._lock:
            self._geometries[key] = found
            self._geometries.move_to_end(key)
            if len(self._geometries) > _MAX_GEOMETRIES:
                self._geometries.popitem(last=False)
        return found


@dataclass(frozen=True)
class _Call:
    """A call of an image processor: with the images of its first argument and other options."""

    image_processor: Any
    images: Any
    options: dict[str, Any]


def _recording(processor: Any) -> tuple[Any, list[_Call]]:
    """Copy of a processor, and the calls of its image processor that it will make.

    The processor may be an image processor itself.
    """
    own = getattr(processor, "image_processor", processor)
    recorder = copy.copy(own)
    base: Any = type(own)
    recorder.__class__ = _recording_class(base)
    recorder.recorded = own, []
    if own is processor:
        return recorder, recorder.recorded[1]
    recording = copy.copy(processor)
    recording.image_processor = recorder
    return recording, recorder.recorded[1]


@cache
def _recording_class(base: Any) -> Any:
    """Subclass of an image processor's class that notes in ``recorded`` what it is called with."""

    def record(self: Any, images: Any, *others: Any, **options: Any) -> Any:
        own, calls = self.recorded
        calls.append(_Call(own, images, options))
        return base.__call__(self, images, *others, **options)

    return type(base.__name__, (base,), {"__call__": record})


def _opened(images: Any) -> tuple[list[Picture], Any]:
    """Pictures in order, and the same nested lists with paths replaced by pictures. Raises :class:`ImageError`."""
    if isinstance(images, (list, tuple)):
        inner = [_opened(one) for one in images]
        return [picture for pictures, _ in inner for picture in pictures], [one for _, one in inner]
    picture = _picture(images)
    return [picture], picture.image


def _opened_chat(conversation: Any) -> tuple[list[Picture], Any]:
    """Pictures of a chat, or of several, in order, and a copy of it that holds them in place of their paths."""
    pictures: list[Picture] = []

    def opened(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return [opened(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        if part.get("type") != "image":
            return {key: opened(value) if key == "content" else value for key, value in part.items()}
        image = next((part[key] for key in ("image", "path", "url") if key in part), None)
        if image is None:
            raise UsageError(f"an image of a chat has one of 'image', 'path', 'url', but got {', '.join(part)}")
        pictures.append(_picture(image))
        return {"type": "image", "image": pictures[-1].image}

    return pictures, opened(conversation)


def _picture(image: Any) -> Picture:
    from PIL import Image

    if isinstance(image, (str, Path)):
        if "://" in str(image):
            raise UsageError(f"{image} is not a file; download the picture and give its path")
        return Picture(Image.fromarray(read_image(image)), Path(image))
    if isinstance(image, Image.Image):
        path = getattr(image, "filename", "")
        return Picture(image, Path(path) if path else None)
    if type(image).__module__.partition(".")[0] == "torch":
        image = image.numpy(force=True)
    check_image(image)
    return Picture(image)


def _like(pixel_values: Any, rows: Any, geometry: Geometry) -> Any:
    """``rows`` as a tensor if ``pixel_values`` are one. Raises :class:`UsageError` if the replay gave another shape."""
    shape = getattr(pixel_values, "shape", None)
    if shape is not None and tuple(shape) != geometry.shape:
        raise UsageError(
            f"pixel_values are {tuple(shape)}, but a replay of the same call gave {geometry.shape}; compute "
            f"{DEPTH_STATS} yourself for this processor"
        )
    if type(pixel_values).__module__.partition(".")[0] == "torch":
        import torch

        return torch.from_numpy(np.ascontiguousarray(rows))
    return rows


def _tower_patch(model: Any) -> int | None:
    """Patch size of a model's vision tower, ``None`` if its configuration does not say."""
    vision = getattr(model.config, "vision_config", None)
    patch = getattr(vision, "patch_size", None)
    sides = set(patch) if isinstance(patch, (list, tuple)) else {patch}
    return sides.pop() if len(sides) == 1 else None
