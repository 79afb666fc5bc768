"""Models outside the table of families: what is refused, and what is taken on the user's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvde.contract import DepthKind, PreprocessRecord
from mvde.description import Sizing
from mvde.errors import CheckpointError, UsageError
from mvde.families.base import UNBOUNDED, Family, FamilyDefaults, FamilyOptions, backbone_patch
from mvde.families.depth_anything import keep_aspect_sizing
from mvde.families.preprocessing import ProcessorDefaults, read_processor

if TYPE_CHECKING:
    from mvde.families.checkpoint import ModelFolder

_ONE_IMAGE = "mvde's engines take one camera image"
_VIDEO = f"video models need several frames at once; {_ONE_IMAGE}"

REFUSED = {
    "chmv2": "CHMv2 estimates the height of tree canopies seen from above, not depth",
    "prompt_depth_anything": f"Prompt Depth Anything needs a depth image as a second input; {_ONE_IMAGE}",
    "video_depth_anything": _VIDEO,
}
"""Depth models by ``model_type`` that cannot be exported, with the reason as one sentence."""

_ARBITRARY = ProcessorDefaults(types=(), size=None, resample=2)


def refusal(folder: ModelFolder) -> str | None:
    """Reason, as one sentence, why a model is refused whatever is said about it; ``None`` if it is not."""
    if folder.model_type in REFUSED:
        return REFUSED[folder.model_type]
    return _VIDEO if "video" in folder.model_type else None


def check_task(folder: ModelFolder) -> None:
    """Raise :class:`CheckpointError` for a model of another task."""
    heads = [str(name) for name in folder.config.get("architectures") or ()]
    if heads and not any("DepthEstimation" in name for name in heads) and not folder.config.get("auto_map"):
        raise CheckpointError(
            f"{folder.name!r} is a {heads[0]} ({folder.model_type}), not a depth model; `mvde models` lists those that "
            "can be exported"
        )


class OtherModel(FamilyDefaults):
    """A depth model of transformers that has no family: kind and preprocessing have to be given."""

    title = "other"
    model_types = ()

    def __init__(self, folder: ModelFolder, options: FamilyOptions, families: Sequence[Family]) -> None:
        """Raise :class:`CheckpointError` if the model cannot be taken, naming the families that can."""
        known = ", ".join(name for family in families for name in family.model_types)
        if folder.config.get("auto_map"):
            raise CheckpointError(
                f"{folder.name!r} needs code from the hub (auto_map in its config.json), which mvde never runs; export "
                "it to ONNX with its own code and run `mvde import FILE.onnx`"
            )
        if options.kind is None or not folder.processor:
            needs = "--kind" if options.kind is None else "a preprocessor_config.json in its folder"
            raise CheckpointError(
                f"{folder.name!r} has the model_type {folder.model_type!r}, which is not among mvde's families "
                f"({known}); a depth model of transformers outside them needs {needs}, since nothing else says what "
                "its numbers mean"
            )

    def kind(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """Kind as given."""
        if options.kind is None or options.kind.has_canonical_camera:
            raise UsageError(f"--kind {options.kind} needs a canonical camera, which {folder.name!r} does not state")
        return options.kind

    def valid_range(self, folder: ModelFolder, kind: DepthKind, options: FamilyOptions) -> tuple[float, float]:
        """``max_depth`` of the configuration, if any."""
        return 0.0, float(folder.config.get("max_depth") or UNBOUNDED)

    def preprocess(self, folder: ModelFolder) -> PreprocessRecord:
        """Preprocessing as the file states it."""
        return read_processor(folder, _ARBITRARY).record

    def sizing(self, folder: ModelFolder) -> Sizing:
        """The processor's size."""
        return keep_aspect_sizing(folder, _ARBITRARY, backbone_patch(folder))

    def stats_patch(self, folder: ModelFolder) -> int:
        """The backbone's patch."""
        return backbone_patch(folder)
