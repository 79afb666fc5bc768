"""Adding the tokens of depth to the image tokens inside a model: hooks at its site, and the call they belong to."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mvde.errors import UsageError
from mvde.vlm.sites import Order, Padding, Site, Where

NUM_REMEMBERED = 16
"""Forward passes whose statistics a backward pass can still ask for."""

_NUM_MARKED = 64
"""Tokens by which the activations of one forward pass are told from another's; 16 passes of width 1152 keep 5 MB."""

_DISTANCE_OF_OTHER_ROUNDING = 1e-5
_DISTANCE_OF_OTHER_TOKENS = 1e-2
"""Largest distance, relative to the largest value, of tokens that were computed twice: bf16 kernels that are not
deterministic differ by 0.4 %, two pictures by more than 10 %.
"""


class DepthCall:
    """Statistics of one call of a model, from its arguments until its backward pass; ``None`` for one without depth.

    ``inputs`` are the other arguments of the call and ``config`` the model's configuration; together they tell padded
    tiles from real ones.
    """

    def __init__(
        self, hook: SiteHook, embedder: nn.Module, config: Any, stats: Tensor | None, inputs: Mapping[str, Any]
    ) -> None:
        self.hook = hook
        self.embedder = embedder
        self.config = config
        self.stats = stats
        self.inputs = inputs
        self.rows: Tensor | None = None
        self.window_index: Tensor | None = None
        self.fingerprint: Tensor | None = None
        self.is_remembered = torch.is_grad_enabled()
        self.was_used = False
        self.was_recomputed = False

    def replace(self, stats: Tensor, inputs: Mapping[str, Any]) -> None:
        """Go on with other statistics and arguments: those of a batch that was expanded."""
        self.stats, self.inputs, self.rows = stats, inputs, None

    def rows_at_site(self, stats: Tensor, padding: Padding) -> Tensor:
        """Rows (..., S) of ``stats`` for the patches that the tower encodes, in the order of the site."""
        if self.rows is None:
            self.rows = _without_padding(self, stats, padding)
            if self.window_index is not None:
                self.rows = _in_windows(self.rows, self.window_index)
        return self.rows


_CALL: contextvars.ContextVar[DepthCall | None] = contextvars.ContextVar("mvde_depth_call", default=None)


@contextmanager
def active(call: DepthCall) -> Iterator[DepthCall]:
    """Give the hooks ``call``; raises :class:`UsageError` at the end if no image token took depth."""
    if call.is_remembered:
        call.hook.remembered.append(call)
    token = _CALL.set(call)
    try:
        yield call
    finally:
        _CALL.reset(token)
        call.inputs = {}  # a remembered call must not keep the pictures
    if call.stats is not None and not call.was_used:
        raise UsageError(
            f"depth_stats {tuple(call.stats.shape)} were given, but the model encoded no image; give pixel_values in "
            f"the same call, or leave depth_stats out"
        )


def current_call(hook: SiteHook) -> DepthCall | None:
    """Return the call of the hook's model that is going on, or ``None``."""
    call = _CALL.get()
    return call if call is not None and call.hook is hook else None


class SiteHook:
    """The hooks of one model's site. A copy of the model has a copy of them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.remembered: deque[DepthCall] = deque(maxlen=NUM_REMEMBERED)

    def __getstate__(self) -> dict[str, Any]:
        return {"site": self.site}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["site"])  # type: ignore[misc]

    def attach(self, model: nn.Module) -> None:
        """Register the hooks on the modules of ``model``."""
        module = model.get_submodule(self.site.path)
        if self.site.order is Order.WINDOW:
            tower = model.get_submodule(self.site.path.rpartition(".")[0])
            tower.register_forward_pre_hook(self.before_tower, with_kwargs=True)
        if self.site.where is Where.INPUT:
            module.register_forward_pre_hook(self.before_site, with_kwargs=True)
        else:
            module.register_forward_hook(self.after_site)

    def before_tower(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the order in which the tower will hand its patches to the site."""
        call = current_call(self)
        if call is not None and call.stats is not None:
            grid = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
            call.window_index = _window_index(tower, grid)

    def before_site(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add depth to the first argument of the site."""
        if args:
            return (self._with_depth(args[0]), *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, {**kwargs, name: self._with_depth(kwargs[name])}

    def after_site(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Add depth to the last hidden state of the site's output."""
        output.last_hidden_state = self._with_depth(output.last_hidden_state)
        return output

    def _with_depth(self, tokens: Tensor) -> Tensor:
        call = current_call(self)
        if call is None and torch._C._current_graph_task_id() != -1:  # inside a backward pass
            call = self._recomputed(tokens)
        if call is None:
            return tokens
        if call.is_remembered and call.fingerprint is None:
            call.fingerprint = _fingerprint(tokens)
        return tokens if call.stats is None else self._added(call, call.stats, tokens)

    def _recomputed(self, tokens: Tensor) -> DepthCall | None:
        """The call whose tokens activation checkpointing computes again during a backward pass.

        The call's arguments are gone by then, and the pass may run in a thread of autograd's.
        """
        mark = _fingerprint(tokens)
        distances = [(_distance(call, mark), call) for call in self.remembered]
        fitting = [pair for pair in distances if pair[0] <= _DISTANCE_OF_OTHER_TOKENS]
        # Passes that were computed again before are done, unless the graph was retained for another backward pass.
        fitting = [pair for pair in fitting if not pair[1].was_recomputed] or fitting
        if not fitting:
            return None
        nearest, call = min(fitting, key=lambda pair: pair[0])
        near = max(_DISTANCE_OF_OTHER_ROUNDING, 10 * nearest)
        if any(distance <= near and not _equal(other.stats, call.stats) for distance, other in fitting):
            raise UsageError(
                "activation checkpointing computes the image tokens again, and two forward passes with the same images "
                "had different depth_stats: run backward after each forward pass, or exclude the module "
                f"{self.site.path!r} from checkpointing"
            )
        call.was_recomputed = True
        return call

    def _added(self, call: DepthCall, stats: Tensor, tokens: Tensor) -> Tensor:
        """``tokens`` of the tower with those of depth added to their patches."""
        given, stats = stats, call.rows_at_site(stats, self.site.padding)
        prefix = self.site.prefix or 0
        patches = tokens[..., prefix:, :]
        num_rows, num_patches = stats.shape[:-1].numel(), patches.shape[:-1].numel()
        if num_rows != num_patches:
            raise UsageError(
                f"depth_stats {tuple(given.shape)} have {num_rows} rows, but the tower gave {num_patches} patches "
                f"({tuple(patches.shape)}); make them with the DepthProcessor of this model's own processor"
            )
        extra: Tensor = call.embedder(stats.to(tokens.device))
        if extra.shape[-1] != tokens.shape[-1]:
            raise UsageError(
                f"the embedder's tokens have width {extra.shape[-1]}, but those at {self.site.path!r} have "
                f"{tokens.shape[-1]}; give DepthConfig(width={tokens.shape[-1]})"
            )
        call.was_used = True
        patches = patches + extra.to(tokens).reshape(patches.shape)
        return torch.cat([tokens[..., :prefix, :], patches], dim=-2) if prefix else patches


def _fingerprint(tokens: Tensor) -> Tensor:
    """Some of the tokens, float32."""
    rows = tokens.detach().flatten(0, -2)
    at = torch.linspace(0, len(rows) - 1, min(_NUM_MARKED, len(rows)), device=rows.device).long()
    return rows[at].float()


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or torch.equal(one, other)


def _distance(call: DepthCall, mark: Tensor) -> float:
    """Largest difference between tokens of the call and ``mark``, relative to the largest value."""
    known = call.fingerprint
    if known is None or known.shape != mark.shape:
        return float("inf")
    return float((known - mark).abs().max() / known.abs().max().clamp(min=1e-30))


def _without_padding(call: DepthCall, stats: Tensor, padding: Padding) -> Tensor:
    """Statistics of the tiles that the model encodes."""
    pixels = call.inputs.get("pixel_values")
    if padding is Padding.NONE or stats.ndim != 4 or pixels is None or pixels.ndim != 5:
        return stats
    if stats.shape[:2] != pixels.shape[:2]:
        raise UsageError(
            f"depth_stats {tuple(stats.shape)} are not (images, tiles, N, S) of pixel_values {tuple(pixels.shape)}; "
            f"make them with the DepthProcessor of this model's own processor"
        )
    if padding is Padding.BLANK:
        is_real = (pixels != 0).flatten(2).any(dim=-1)
    else:
        counts = torch.tensor(_num_tiles(call), device=stats.device)
        is_real = torch.arange(stats.shape[1], device=stats.device) < counts[:, None]
    return stats[is_real.to(stats.device)]


def _num_tiles(call: DepthCall) -> list[int]:
    """Number of tiles of each image, as LLaVA-NeXT and LLaVA-OneVision compute it."""
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    sizes = call.inputs.get("image_sizes")
    if sizes is None:
        raise UsageError("a model with tiles of any resolution needs image_sizes beside pixel_values and depth_stats")
    groups = call.inputs.get("batch_num_images")
    is_tiled = [True] * len(sizes) if groups is None else [n == 1 for n in groups for _ in range(n)]
    pinpoints, side = call.config.image_grid_pinpoints, call.config.vision_config.image_size
    return [
        image_size_to_num_patches(size, pinpoints, side) if tiled else 1
        for size, tiled in zip(sizes, is_tiled, strict=True)
    ]


def _in_windows(stats: Tensor, index: Tensor) -> Tensor:
    """Rows of ``stats`` (patches, S), in units of merged patches, in the order of ``index``."""
    rows = stats.reshape(-1, stats.shape[-1])
    merged = rows.reshape(len(index), -1, rows.shape[-1]) if len(rows) % len(index) == 0 else rows[:, None]
    if len(merged) != len(index):
        return stats  # another grid; the count of rows is refused by the caller
    return merged[index.to(stats.device)].reshape(rows.shape)


def _window_index(tower: Any, grid: Tensor) -> Tensor:
    """Order of the merged patches in the tower, as Qwen2.5-VL computes it."""
    if hasattr(tower, "get_window_index"):  # older versions of transformers
        index: Tensor = tower.get_window_index(grid)[0]
        return index
    from transformers.vision_utils import get_vision_window_index

    index, _ = get_vision_window_index(grid, tower.spatial_merge_size, tower.window_size, tower.patch_size)
    return index
