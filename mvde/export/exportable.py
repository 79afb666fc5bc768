"""What the exporter asks of a depth model; :class:`mvde.image_model.ImageDepthModel` answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mvde.description import ModelDescription


@runtime_checkable
class ExportableModel(Protocol):
    """A depth model in PyTorch: images (B, 3, H, W) in, map (B, H, W) out; nothing is asked about its parts.

    ``mean`` and ``std`` (1, 3, 1, 1) normalise pixels in [0, 1].
    """

    mean: Tensor
    std: Tensor
    training: bool

    def describe(self) -> ModelDescription:
        """Describe the meaning of the map, the pixels, the sizes and the origin of the model."""
        ...

    def num_encoder_weights(self) -> int:
        """Count the encoder's weights, from which the cost of a call is estimated."""
        ...

    def predict_depth(self, images: Tensor) -> Tensor:
        """Map (B, H, W) of images (B, 3, H, W), uint8 RGB, in evaluation mode and without gradients."""
        ...

    def at_resolution(self, resolution: tuple[int, int]) -> nn.Module:
        """Build a module from normalised pixels (B, 3, H, W) to the map at a fixed resolution (H, W)."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move or convert the weights in place."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """Weights by name."""
        ...
