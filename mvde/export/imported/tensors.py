"""The picture and the maps of a third-party graph: found by name or by shape, never guessed between two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.contract import OutputRole
from mvde.errors import ArtifactError, UsageError
from mvde.export.graph.edit import ints, is_op, static_shape
from mvde.export.imported.contract import ImportContract, Layout, NamedOutput

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Pixels:
    """The picture input of a graph and the order of its axes."""

    name: str
    layout: Layout


def find_pixels(model: ir.Model, path: Path, name: str | None, layout: Layout | None) -> Pixels:
    """Find the only input, a float32 picture of four axes, three of them fixed or free and one of 3 channels.

    Raises :class:`ArtifactError` for further inputs, another type or number of axes, :class:`UsageError` for a name
    that does not exist or a layout that the file contradicts or leaves open.
    """
    inputs = {str(value.name): value for value in model.graph.inputs}
    if not inputs:
        raise ArtifactError(f"{path} has no input; mvde needs a picture input")
    if name is not None and name not in inputs:
        raise UsageError(f"{path} has no input {name!r}; it has {', '.join(map(repr, inputs))}")
    picture = inputs[name] if name is not None else _only_picture(inputs)
    _check_sole(picture, inputs, path)
    _check_type(picture, path)
    return Pixels(str(picture.name), _layout(picture, path, layout))


def fix_input(model: ir.Model, path: Path, pixels: Pixels, batch: int, resolution: tuple[int, int]) -> None:
    """Give the picture input its size. Raises :class:`UsageError` where the file is fixed to another one."""
    import onnx_ir as ir

    (picture,) = [value for value in model.graph.inputs if value.name == pixels.name]
    wanted = pixels.layout.shape(batch, resolution)
    stated = _sides(picture)
    if any(side is not None and side != want for side, want in zip(stated, wanted, strict=True)):
        fixed = dict(zip(_AXES[pixels.layout], stated, strict=True))
        free = "; export it again with dynamic axes for another size"
        raise UsageError(
            f"input {pixels.name!r} of {path} is fixed to {_shape_text(picture)}, not {list(wanted)}: use "
            f"--res {fixed['height'] or resolution[0]}x{fixed['width'] or resolution[1]} and --batch "
            f"{fixed['batch'] or batch}{free}"
        )
    picture.shape = ir.Shape(wanted)


def fixed_resolution(model: ir.Model, pixels: Pixels) -> tuple[int, int] | None:
    """Size (H, W) that the file is fixed to, ``None`` where it is dynamic."""
    (picture,) = [value for value in model.graph.inputs if value.name == pixels.name]
    sides = dict(zip(_AXES[pixels.layout], _sides(picture), strict=True))
    height, width = sides["height"], sides["width"]
    return None if height is None or width is None else (height, width)


def find_outputs(
    model: ir.Model, path: Path, contract: ImportContract, batch_shape: Sequence[int]
) -> list[NamedOutput]:
    """Outputs to keep, depth first; ``batch_shape`` is (B, H, W), and the shapes of ``model`` are static.

    The depth output is the one of the contract's outputs or names, else the only map of this size. Raises
    :class:`UsageError` naming the candidates where there are two, :class:`ArtifactError` where there is none.
    """
    outputs = {str(value.name): value for value in model.graph.outputs}
    listed = ", ".join(f"{name!r} {_shape_text(value)}" for name, value in outputs.items())
    for output in contract.outputs:
        if output.name not in outputs:
            raise UsageError(f"{path} has no output {output.name!r}; it has {listed}")
        if not is_map(outputs[output.name], batch_shape):
            raise ArtifactError(
                f"output {output.name!r} of {path} is {_shape_text(outputs[output.name])}, not a floating-point map of "
                f"the input's size {list(batch_shape)}; it cannot be {output.role}"
            )
    stated = [output for output in contract.outputs if output.role is OutputRole.DEPTH]
    others = [output for output in contract.outputs if output.role is not OutputRole.DEPTH]
    others += [one for one in contract.usual_outputs if one.name in outputs and is_map(outputs[one.name], batch_shape)]
    if stated:
        return [*stated, *others]
    taken = {output.name for output in others}
    candidates = [name for name, value in outputs.items() if name not in taken and is_map(value, batch_shape)]
    usual = [name for name in contract.depth_names if name in candidates]
    if not candidates:
        raise ArtifactError(
            f"{path} has no usable output: none of {listed} is a floating-point map of the input's size "
            f"{list(batch_shape)}"
        )
    if not usual and len(candidates) > 1:
        names = " and ".join(map(repr, candidates))
        raise UsageError(
            f"{path} has several maps of the input's size, {names}; say which is depth: --output NAME=depth"
        )
    return [NamedOutput((usual or candidates)[0], OutputRole.DEPTH), *others]


def is_map(value: ir.Value, batch_shape: Sequence[int]) -> bool:
    """Whether a value holds one floating-point number per pixel of (B, H, W), with axes of length 1 anywhere."""
    shape = static_shape(value)
    if shape is None or value.dtype is None or not value.dtype.is_floating_point():
        return False
    if math.prod(shape) != math.prod(batch_shape):
        return False
    return [side for side in shape if side != 1] == [side for side in batch_shape if side != 1]


_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Cast", "Identity", "Clip")
_AXES = {
    Layout.NCHW: ("batch", "channels", "height", "width"),
    Layout.NHWC: ("batch", "height", "width", "channels"),
}


def _only_picture(inputs: dict[str, ir.Value]) -> ir.Value:
    """Input that looks like a picture; the first one where none does."""
    pictures = [value for value in inputs.values() if len(_sides(value)) == 4 and 3 in (_sides(value)[1::2])]
    return (pictures or list(inputs.values()))[0]


def _check_sole(picture: ir.Value, inputs: dict[str, ir.Value], path: Path) -> None:
    """Raise :class:`ArtifactError` naming a second input and the node that reads it."""
    for name, value in inputs.items():
        if value is picture:
            continue
        reader = next((use.node for use in value.uses()), None)
        read = f", read by the {reader.op_type} node {reader.name!r}" if reader is not None else ""
        raise ArtifactError(
            f"{path} has a second input {name!r} {_shape_text(value)}{read}; mvde gives a network one picture per call "
            "and keeps no state between calls: export the model with this input as a constant"
        )


def _check_type(picture: ir.Value, path: Path) -> None:
    import onnx_ir as ir

    if picture.dtype is not ir.DataType.FLOAT:
        kind = "an unknown type" if picture.dtype is None else picture.dtype.name.lower()
        raise ArtifactError(
            f"input {picture.name!r} of {path} takes pixels in {kind}, but mvde feeds float32; export the model with "
            "float32 input (keep_io_types=True keeps it where weights become fp16)"
        )
    if len(_sides(picture)) != 4:
        raise ArtifactError(
            f"input {picture.name!r} of {path} is {_shape_text(picture)}, not a batch of pictures of four axes"
        )


def _layout(picture: ir.Value, path: Path, wanted: Layout | None) -> Layout:
    """Order of the picture's axes: by the axis that has 3 channels, or as wanted where that axis is open."""
    sides = _sides(picture)
    planes, interleaved = sides[1] in (None, 3), sides[3] in (None, 3)
    fits = {Layout.NCHW: planes, Layout.NHWC: interleaved}
    if not any(fits.values()):
        raise ArtifactError(
            f"input {picture.name!r} of {path} is {_shape_text(picture)}, without an axis of 3 channels"
        )
    if wanted is not None:
        if not fits[wanted]:
            raise UsageError(f"input {picture.name!r} of {path} is {_shape_text(picture)}, which is not {wanted}")
        return wanted
    sure = [layout for layout, index in ((Layout.NCHW, 1), (Layout.NHWC, 3)) if sides[index] == 3]
    read = _layout_of_readers(picture)
    possible = sure or ([read] if read is not None else [layout for layout, fit in fits.items() if fit])
    if len(possible) > 1:
        raise UsageError(
            f"input {picture.name!r} of {path} is {_shape_text(picture)}, which does not tell where its channels are; "
            "give --layout NCHW or --layout NHWC"
        )
    return possible[0]


def _layout_of_readers(picture: ir.Value) -> Layout | None:
    """Layout that the first convolution tells: it takes planes, or a transpose to planes comes before it."""
    values, seen = [picture], {picture}
    while values:
        for use in values.pop(0).uses():
            node = use.node
            if is_op(node, "Conv") and use.idx == 0:
                return Layout.NCHW
            if is_op(node, "Transpose"):
                return Layout.NHWC if ints(node, "perm", ()) == (0, 3, 1, 2) else None
            if is_op(node, *_ELEMENTWISE) and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                values.append(node.outputs[0])
    return None


def _sides(value: ir.Value) -> list[int | None]:
    """Sizes of a value's axes, ``None`` for a dynamic one; empty where the number of axes is unknown."""
    shape = value.shape
    return [] if shape is None else [side if isinstance(side, int) else None for side in shape]


def _shape_text(value: ir.Value) -> str:
    shape = value.shape
    return (
        "of unknown shape" if shape is None else str([side if isinstance(side, int) else str(side) for side in shape])
    )
