"""Depth from the pass of a vision-language model's own tower: a depth decoder on its hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvde.backbones.tower import map_from_tokens
from mvde.backbones.towers import SIGLIP, TOWERS
from mvde.contract import DepthKind, FocalConvention
from mvde.errors import UsageError
from mvde.files import sha256_file
from mvde.runtime.frame_camera import camera_factor
from mvde.stats import depth_to_patch_stats
from mvde.vlm.attach import depth_config, site_hook, unwrapped
from mvde.vlm.config import RAYS, CameraRule
from mvde.vlm.injection import current_call
from mvde.vlm.rows import PendingDepth

if TYPE_CHECKING:
    from mvde.camera import Camera
    from mvde.model import DepthModel
    from mvde.runtime.placement import Placement
    from mvde.vlm.sources import Picture

TOWER_TYPES = (SIGLIP, "clip_vision_model")
"""Towers of one input size whose hidden states are those that depth models of mvde are trained on."""

_PATHS = ("model.vision_tower", "model.vision_model")


class OwnTower:
    """Source of depth that runs the decoder of a depth model on the hidden states of a model's own tower.

    The tower runs once for language and depth. Depth is bit-equal to that of the depth model run apart on the same
    pixels. It is computed without gradients, so the tower must stay as the depth model was trained on: it is compared
    weight by weight here, and adapters belong on the language model alone.

    ``model`` has depth already (:func:`mvde.vlm.add_depth`), ``processor`` is its own; the model must see each picture
    whole, not in tiles. Pass this object as the source of a :class:`DepthProcessor`: its rows only say where depth
    belongs and for which camera, and the model fills them in when it encodes the pictures. ``sha256`` identifies the
    depth model in the model's configuration.

    Raises :class:`UsageError` for a tower of another kind or with other weights, and for another normalisation.
    """

    def __init__(self, model: nn.Module, depth_model: DepthModel, processor: Any, sha256: str | None = None) -> None:
        meaning = depth_model.describe()
        self.depth_kind: DepthKind = meaning.depth_kind
        self.canonical_focal: float | None = meaning.canonical_focal
        self.focal_convention: FocalConvention | None = meaning.focal_convention
        self.graph_sha256 = sha256
        self._columns = depth_config(model).columns
        self._site_hook = site_hook(model)
        self._decoder, self._activation = depth_model.decoder.eval(), depth_model.activation
        self._taps, self._patch = depth_model.backbone.taps, depth_model.patch_size
        tower = _tower_of(model)
        shared = TOWERS[tower.config.model_type].build(tower, self._taps)
        _check_same_weights(shared, depth_model.backbone)
        _check_normalization(depth_model, processor)
        prefix = shared.prefix_embedding
        self._num_prefix = 0 if prefix is None else int(prefix.shape[1])
        self._states: dict[int, Tensor] = {}
        self._handles = self._hook(tower, shared.layers)

    @classmethod
    def load(cls, model: nn.Module, path: str | Path, processor: Any) -> OwnTower:
        """Make it of a checkpoint of ``mvde train``. Raises :class:`CheckpointError` as :meth:`DepthModel.load`."""
        from mvde.model import DepthModel

        return cls(model, DepthModel.load(path), processor, sha256_file(Path(path)))

    @property
    def camera_rule(self) -> CameraRule:
        """The frame's for kinds with a canonical camera."""
        return CameraRule.FRAME if self.depth_kind.has_canonical_camera else CameraRule.NONE

    def depth_of(self, picture: Picture, camera: Camera | None) -> PendingDepth:
        """Say that depth of a picture is computed in the model, for its ``camera``."""

        def factor_of(placement: Placement) -> float:
            return camera_factor(self, camera, placement)

        return PendingDepth(picture.size, factor_of, camera)

    def detach(self) -> None:
        """Remove the hooks from the model; rows that wait for depth have none from then on."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, tower: nn.Module, layers: nn.ModuleList) -> list[Any]:
        """Register hooks on the tapped layers, and on the tower before those of the site."""
        handles = [tower.register_forward_hook(self._after_tower, with_kwargs=True, prepend=True)]
        for tap in self._taps:
            if tap == 0:
                handles.append(layers[0].register_forward_pre_hook(self._before_first_layer))
            else:
                handles.append(layers[tap - 1].register_forward_hook(_Tap(self, tap)))
        return handles

    def _before_first_layer(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self.keep(0, args[0])

    def keep(self, tap: int, state: Tensor) -> None:
        """Keep a hidden state (B, tokens, D) if the model's call waits for depth."""
        call = current_call(self._site_hook)
        if call is not None and call.stats is not None and bool(torch.any(call.stats < 0)):
            self._states[tap] = state.detach()

    @torch.no_grad()
    def _after_tower(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Fill the rows of the call that wait for depth."""
        call, states = current_call(self._site_hook), self._states
        self._states = {}
        if call is None or call.stats is None or not states:
            return
        pixels = args[0] if args else kwargs["pixel_values"]
        depth = self._depth(states, (int(pixels.shape[-2]), int(pixels.shape[-1])))
        call.replace(self._filled(call.stats, depth), call.inputs)

    def _depth(self, states: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Depth (B, H, W) float32 of whole patches, from hidden states of pictures of ``size``."""
        grid = size[0] // self._patch, size[1] // self._patch
        maps = tuple(map_from_tokens(states[tap][:, self._num_prefix :].float(), grid) for tap in self._taps)
        self._decoder.to(maps[0].device)
        raw = self._decoder(maps, (grid[0] * self._patch, grid[1] * self._patch))
        depth: Tensor = self._activation(raw)
        return depth

    def _filled(self, given: Tensor, depth: Tensor) -> Tensor:
        """Rows (B, N, S) with statistics of ``depth`` (B, H, W) where ``given`` wait for them."""
        rows = given.reshape(len(depth), -1, given.shape[-1])
        names = [name for name in self._columns if name not in RAYS]
        columns = [self._columns.index(name) for name in names]
        waits = (rows[..., columns] < 0).all(-1)
        factors = -rows[..., columns[0]].masked_fill(~waits, 0).amax(-1)
        scaled = depth * torch.where(factors > 0, factors, 1).to(depth)[:, None, None]
        filled = rows.clone()
        stats = depth_to_patch_stats(scaled, self._patch, names).to(rows)
        filled[..., columns] = torch.where(waits[..., None], stats, rows[..., columns])
        return filled.reshape(given.shape)


class _Tap:
    """Hook on a layer that keeps its output; an object, so that it is copied with the model."""

    def __init__(self, owner: OwnTower, tap: int) -> None:
        self.owner, self.tap = owner, tap

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.owner.keep(self.tap, output[0] if isinstance(output, tuple) else output)


def _tower_of(model: Any) -> Any:
    """The model's vision tower. Raises :class:`UsageError` for one that depth models are not trained on."""
    model = unwrapped(model)
    for path in _PATHS:
        try:
            tower: Any = model.get_submodule(path)
        except AttributeError:
            continue
        kind = getattr(getattr(tower, "config", None), "model_type", None)
        if kind in TOWER_TYPES:
            return tower
        raise UsageError(
            f"the tower of this {type(model).__name__} is a {kind}, but depth of a model's own tower needs one of "
            f"{', '.join(TOWER_TYPES)}; use a DepthRuntime as the source"
        )
    raise UsageError(
        f"this {type(model).__name__} has no tower at {' or '.join(_PATHS)}; use a DepthRuntime as the source"
    )


def _check_same_weights(shared: nn.Module, trained: nn.Module) -> None:
    """Raise :class:`UsageError` naming the first weight of the model's tower that is not the depth model's."""
    theirs, ours = shared.state_dict(), trained.state_dict()
    for name in sorted(set(theirs) | set(ours)):
        own, expected = theirs.get(name), ours.get(name)
        is_same = own is not None and expected is not None and own.shape == expected.shape
        if not (is_same and torch.equal(own, expected.to(own))):  # type: ignore[union-attr, arg-type]
            raise UsageError(
                f"the depth model's tower is not that of this model: {name} differs; train the depth model on this "
                "model's tower (vit.name: its folder) without adapters, or use a DepthRuntime as the source"
            )


def _check_normalization(depth_model: DepthModel, processor: Any) -> None:
    """Raise :class:`UsageError` if the processor normalises pixels in another way than the depth model."""
    own = getattr(processor, "image_processor", processor)
    for name, expected in (("image_mean", depth_model.mean), ("image_std", depth_model.std)):
        given = torch.as_tensor(getattr(own, name, None) or (0.0,) * 3, dtype=torch.float32)
        if not torch.allclose(given.flatten(), expected.flatten().cpu(), atol=1e-6):
            raise UsageError(
                f"the processor's {name} is {given.tolist()}, but the depth model was trained with "
                f"{expected.flatten().tolist()}; use a depth model that was trained with this processor's pixels"
            )
