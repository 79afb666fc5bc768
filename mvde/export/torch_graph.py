"""Conversion of a PyTorch depth model to a folded ONNX graph in memory, at one resolution."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mvde.errors import MissingDependencyError
from mvde.export.fold import DEFAULT_RULES, fold_graph

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from mvde.export.exportable import ExportableModel

DEFAULT_OPSET = 23
"""First opset with the standard ``Attention`` operator."""


@contextlib.contextmanager
def traced(
    model: ExportableModel,
    resolution: tuple[int, int],
    batch: int = 1,
    opset: int = DEFAULT_OPSET,
    rules: Iterable[str] = DEFAULT_RULES,
) -> Iterator[ir.Model]:
    """Graph of ``model`` at ``resolution``, folded by ``rules``: uint8 (B, H, W, 3) in, depth (B, H, W) out.

    The graph shares the model's weights and is emptied of them on exit: the exporter's rewriter keeps a reference to
    the last graph, which would keep the weights alive.
    """
    torch = import_export_packages()
    was_training = model.training
    try:
        wrapper, aliases = _with_aliases(_camera_bytes_model(model, resolution))
        image = torch.zeros(batch, *resolution, 3, dtype=torch.uint8)
        with torch.no_grad(), _quiet_exporter():
            program = torch.onnx.export(
                wrapper,
                (image,),
                dynamo=True,
                opset_version=opset,
                input_names=["image"],
                output_names=["depth"],
                verbose=False,
            )
    finally:
        model.train(was_training)
    graph: ir.Model = program.model
    values = list(graph.graph.initializers.values())
    fold_graph(graph, rules)
    _forget_origin(graph)
    try:
        yield graph
    finally:
        for value in (*values, *graph.graph.initializers.values()):
            value.const_value = None
        for alias in aliases:
            alias.data = torch.empty(0)


def _with_aliases(module: torch.nn.Module) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """Copy of a module in evaluation mode, and its tensors: separate objects that share memory."""
    import copy

    import torch

    tensors = [*module.parameters(), *module.buffers()]
    aliases = [
        torch.nn.Parameter(tensor.detach(), requires_grad=False)
        if isinstance(tensor, torch.nn.Parameter)
        else tensor.detach()
        for tensor in tensors
    ]
    memo: dict[int, Any] = {id(tensor): alias for tensor, alias in zip(tensors, aliases, strict=True)}
    return copy.deepcopy(module, memo).eval(), aliases


def import_export_packages() -> Any:
    """Return torch after checking that all packages needed for export are installed."""
    for package in ("torch", "onnx", "onnxscript", "onnx_ir"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError.for_extra(package, "export", "exporting a model")
    import torch

    return torch


def _camera_bytes_model(model: ExportableModel, resolution: tuple[int, int]) -> torch.nn.Module:
    """Wrap the model to take bytes (B, H, W, 3); keeps export code out of the trained model."""
    import torch

    class CameraBytesModel(torch.nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model.at_resolution(resolution)
            self.register_buffer("mean", model.mean.detach().clone())
            self.register_buffer("std", model.std.detach().clone())

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            # The cast comes first: TensorRT's parser refuses to transpose uint8.
            pixels = image.to(torch.float32).permute(0, 3, 1, 2)  # (B, 3, H, W)
            depth: torch.Tensor = self.model((pixels / 255 - self.mean) / self.std)
            return depth

    return CameraBytesModel().eval()


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress the exporter's warnings about unrelated packages (torchvision)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _forget_origin(graph: ir.Model) -> None:
    """Remove stack traces, which contain local paths, that the exporter stores in every node."""
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.graph.inputs, *graph.graph.initializers.values()):
        value.metadata_props.clear()
    graph.graph.metadata_props.clear()
    graph.metadata_props.clear()
