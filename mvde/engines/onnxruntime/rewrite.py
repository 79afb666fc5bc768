"""Rewriting of a graph for ONNX Runtime's CPU provider, exact in real arithmetic."""

from __future__ import annotations

import shutil
from pathlib import Path

from mvde.engines.base import one_line
from mvde.engines.onnxruntime import attention
from mvde.engines.onnxruntime.attention_choice import Choice, choose
from mvde.engines.onnxruntime.session import SessionSettings
from mvde.errors import BackendError


def rewritten(
    source: Path, target: Path, form: attention.Form | None = None, settings: SessionSettings | None = None
) -> dict[str, str]:
    """Write the graph at ``source`` to ``target`` with its attentions in ``form``; return what the manifest says.

    Without a form each is measured with the ``settings`` of the engine's session, and the fastest one chosen. External
    data stays where it is, under its names. A graph in which nothing changes is copied byte by byte. Raises
    :class:`BackendError` if the graph cannot be read.
    """
    try:
        import onnx_ir as ir
        from onnx_ir.passes import common
    except ImportError:
        shutil.copyfile(source, target)
        left = f"{attention.NAMES[attention.Form.OPERATOR]}; onnx-ir, which rewrites it, is not installed"
        return {"attention": left} if _may_have_attention(source) else {}
    try:
        model = common.ShapeInferencePass()(ir.load(source)).model
    except Exception as error:  # protobuf, onnx and onnx_ir exceptions share no base class
        raise BackendError(f"cannot read {source} as an ONNX graph: {one_line(error)}") from error
    choice = Choice(form, {}) if form is not None else choose(model, settings or SessionSettings())
    written = attention.rewrite(model, choice.form)
    if set(written) <= {attention.Form.OPERATOR}:
        shutil.copyfile(source, target)
    else:
        common.RemoveUnusedNodesPass()(model)
        ir.save(model, target)
    told = "; ".join(filter(None, (attention.description(written), str(choice))))
    return {"attention": told} if told else {}


def _may_have_attention(source: Path) -> bool:
    """Whether the file names the standard operator; without onnx-ir its nodes cannot be read."""
    return b"Attention" in source.read_bytes()
