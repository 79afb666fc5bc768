"""Parse the typed ONNX file into the library's network; report rejected nodes with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.tensorrt.api import version_of
from mvde.errors import BackendError

if TYPE_CHECKING:
    from mvde.engines.tensorrt.api import Api
    from mvde.manifest import Manifest

FIRST_ATTENTION_OPSET = 23
FIRST_VERSION_WITH_ATTENTION = (10, 14)
"""First parser with ONNX `Attention`: https://github.com/onnx/onnx-tensorrt/releases/tag/release%2F10.14-GA."""


def parse_graph(api: Api, builder: Any, path: Path) -> tuple[Any, Any]:
    """Parse an ONNX file; return the network and the parser, which owns its weights: keep both until the plan is built.

    Raises :class:`BackendError` naming each rejected node and a remedy.
    """
    network = api.empty_network(builder)
    parser = api.module.OnnxParser(network, api.logger)
    # Parse from the file, not from bytes: external data is resolved relative to it.
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise BackendError(f"{api.library.title} {api.version} cannot parse {path}: {_described(errors, api)}")
    if network.num_outputs == 0:
        raise BackendError(f"{api.library.title} {api.version} found no output in {path}; export the graph again")
    return network, parser


def check_opset(api: Api, manifest: Manifest) -> None:
    """Raise :class:`BackendError` for a graph with ``Attention`` and a TensorRT before 10.14, which lacks it.

    The error states the export command for a supported opset.
    """
    if api.is_rtx or manifest.opset < FIRST_ATTENTION_OPSET or version_of(api.version) >= FIRST_VERSION_WITH_ATTENTION:
        return
    height, width = manifest.resolution
    needed = ".".join(map(str, FIRST_VERSION_WITH_ATTENTION))
    verb = f"import {manifest.source.name}" if manifest.source.kind == "onnx" else "export"
    raise BackendError(
        f"the graph of {manifest.name} has opset {manifest.opset}, whose Attention operator {api.library.title} "
        f"{api.version} does not know ({needed} does); export it for this version: "
        f"mvde {verb} --opset 20 --name {manifest.name} --res {height}x{width}"
    )


def _described(errors: list[Any], api: Api) -> str:
    """The parser's error for each node, and the remedy."""
    if not errors:
        return api.complaint()
    told = [f"node {error.node_name() or error.node()} ({error.node_operator() or 'unknown'}): {_line(error.desc())}"
            for error in errors[:3]]  # fmt: skip
    more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
    operators = {error.node_operator() for error in errors}
    way_out = (
        "export it without that operator: mvde export --opset 20"
        if "Attention" in operators
        else "export it with another --opset, or run it with --engine onnxruntime:fp32"
    )
    return f"{'; '.join(told)}{more}; {way_out}"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
