"""A depth network of transformers as an :class:`ImageDepthModel`, and its copy for a fixed resolution."""

from __future__ import annotations

import contextlib
import contextvars
import copy
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvde.families.base import Family, ModelSetup
from mvde.image_model import ImageDepthModel

if TYPE_CHECKING:
    from mvde.description import ModelDescription

_POSITION_METHODS = ("interpolate_pos_encoding", "_resize_pos_embed")


class TransformersDepthModel(ImageDepthModel):
    """A family's network behind mvde's interface; its map is that of transformers' model, in the same unit."""

    def __init__(self, network: nn.Module, family: Family, setup: ModelSetup) -> None:
        super().__init__()
        self.network = FamilyNetwork(network, family, setup)
        self._description = setup.description
        preprocess = setup.description.preprocess
        scale = preprocess.pixel_range
        self._set_normalization([mean / scale for mean in preprocess.mean], [std / scale for std in preprocess.std])

    @property
    def patch_size(self) -> int:
        """Side of a patch of the statistics in pixels."""
        return self._description.stats_patch

    def describe(self) -> ModelDescription:
        """Describe the meaning of the map, the pixels, the sizes and the origin of the model."""
        return self._description

    def num_encoder_weights(self) -> int:
        """Count the weights of the whole network."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def check_size(self, resolution: tuple[int, int]) -> None:
        """Raise :class:`ResolutionError` for an image size (H, W) that the network cannot take."""
        self._description.check(resolution)

    def depth_from_pixels(self, pixels: Tensor) -> Tensor:
        """Map (B, H, W) from normalised pixels (B, 3, H, W)."""
        depth: Tensor = self.network(pixels)
        return depth

    def at_resolution(self, resolution: tuple[int, int]) -> nn.Module:
        """Copy for a fixed ``resolution`` (H, W), with constant position embeddings, that shares the weights."""
        self.check_size(resolution)
        return fixed_network(self.network, resolution)


class FamilyNetwork(nn.Module):
    """Map (B, H, W), float32, at the size of the normalised pixels (B, 3, H, W)."""

    def __init__(self, network: nn.Module, family: Family, setup: ModelSetup) -> None:
        super().__init__()
        self.network = network
        self.family = family
        self.setup = setup

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the map at the resolution of ``pixels``; a map of another size is resized as transformers does."""
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        depth = self.family.depth(self.network, pixels, self.setup)
        if depth.shape[1:] != pixels.shape[2:]:
            depth = F.interpolate(depth[:, None], size=size, mode=self.family.resize_mode, align_corners=False)[:, 0]
        return depth.float()


def fixed_network(network: FamilyNetwork, resolution: tuple[int, int]) -> FamilyNetwork:
    """Copy of a network whose position embeddings for ``resolution`` (H, W) are constants; weights are shared."""
    tensors = [*network.parameters(), *network.buffers()]
    fixed = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors}).eval()
    parameter = next(fixed.parameters())
    pixels = torch.zeros(1, 3, *resolution, dtype=parameter.dtype, device=parameter.device)
    waiting: set[nn.Module] = set()
    recorded = [module for module in fixed.modules() if _record_position(module, waiting)]
    waiting.update(recorded)
    if recorded:
        # In a context of its own: transformers keeps what it captures in context variables.
        contextvars.copy_context().run(_run_until_recorded, fixed, pixels)
    for module in recorded:
        _replay_position(module)
    return fixed


class _AllRecordedError(Exception):
    """Ends a call once nothing is left to record: for Depth Anything at 518x686 the rest takes 4 s on two cores."""


@torch.no_grad()
def _run_until_recorded(network: FamilyNetwork, pixels: Tensor) -> None:
    with contextlib.suppress(_AllRecordedError):
        network(pixels)


def _record_position(module: nn.Module, waiting: set[nn.Module]) -> bool:
    """Record the module's resampled position embedding in the next call; return whether it has one.

    A module that has recorded leaves ``waiting``.
    """
    if hasattr(module, "relative_position_bias_table") and hasattr(module, "generate_relative_position_index"):
        module.forward = _bias_recorder(module, module.forward, waiting)
        return True
    for method in _POSITION_METHODS:
        resample = getattr(module, method, None)
        if callable(resample):
            setattr(module, method, _recorder(module, method, resample, waiting))
            return True
    return False


def _recorder(
    module: nn.Module, method: str, resample: Callable[..., Tensor], waiting: set[nn.Module]
) -> Callable[..., Tensor]:
    def recording(*args: Any, **kwargs: Any) -> Tensor:
        position = resample(*args, **kwargs).detach().clone()
        module.register_buffer("fixed_position", position, persistent=False)
        module.fixed_method = method  # type: ignore[assignment]
        _leave(module, waiting)
        return position

    return recording


def _leave(module: nn.Module, waiting: set[nn.Module]) -> None:
    waiting.discard(module)
    if not waiting:
        raise _AllRecordedError


def _bias_recorder(module: Any, original: Callable[..., Tensor], waiting: set[nn.Module]) -> Callable[..., Tensor]:
    """Record the table of BEiT's relative positions for a window; the bias itself, S x S for each head, is not kept.

    For a large model at 384x512 the biases would take 0.9 GB.
    """

    def recording(window_size: tuple[int, int], *args: Any, **kwargs: Any) -> Tensor:
        table, (rows, columns) = module.relative_position_bias_table, module.window_size
        grid = table[:-3].reshape(1, 2 * rows - 1, 2 * columns - 1, -1).permute(0, 3, 1, 2)
        size = (2 * window_size[0] - 1, 2 * window_size[1] - 1)
        resized = F.interpolate(grid, size=size, mode="bilinear")[0].flatten(1).T
        index = module.generate_relative_position_index(window_size)
        module.register_buffer("fixed_table", torch.cat([resized, table[-3:]]).detach().clone(), persistent=False)
        module.register_buffer("fixed_index", index.clone(), persistent=False)
        _leave(module, waiting)
        return original(window_size, *args, **kwargs)

    return recording


def _recorded_bias(module: Any, *args: Any, **kwargs: Any) -> Tensor:
    bias: Tensor = module.fixed_table[module.fixed_index].permute(2, 0, 1)[None].contiguous()
    return bias


def _replay_position(module: nn.Module) -> None:
    """Make the module return its recorded position embedding from now on.

    Bound as a method, so that a copy of the module, as made by the exporter, returns the copy's tensor.
    """
    if hasattr(module, "fixed_table"):
        module.forward = MethodType(_recorded_bias, module)
        return
    for method in _POSITION_METHODS:
        module.__dict__.pop(method, None)
    if hasattr(module, "fixed_position"):
        setattr(module, str(module.fixed_method), MethodType(_recorded_position, module))


def _recorded_position(module: Any, *args: Any, **kwargs: Any) -> Tensor:
    position: Tensor = module.fixed_position
    return position
