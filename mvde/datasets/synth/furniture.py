"""Furniture of standard dimensions, composed of unit meshes.

A piece stands on z = 0 with its back at y = 0 and its front towards +y, centred in x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mvde.datasets.synth import objects
from mvde.datasets.synth.builder import Material, SceneBuilder, tilted


@dataclass(frozen=True)
class Piece:
    """Footprint and height of a piece in metres, and whether its top is a work surface."""

    width: float
    depth: float
    height: float
    work_top: bool = False


Draw = Callable[[SceneBuilder], None]
Plan = tuple[Piece, Draw]
Planner = Callable[[SceneBuilder], Plan]


def draw_legs(b: SceneBuilder, width: float, depth: float, height: float, thick: float, material: Material) -> None:
    """Draw four legs of thickness ``thick``, in metres."""
    mesh = "box" if b.rng.random() < 0.5 else "cylinder"
    for x in (-1, 1):
        for y in (0, 1):
            centre = (x * (width / 2 - thick), thick + y * (depth - 2 * thick), height / 2)
            b.add(mesh, centre, (thick, thick, height), material)


def table(b: SceneBuilder) -> Plan:
    """Plan a dining table or desk with objects on it."""
    rng = b.rng
    size = Piece(rng.uniform(0.9, 2.0), rng.uniform(0.65, 1.0), rng.uniform(0.71, 0.78), work_top=True)
    return size, lambda b: draw_table(b, size, int(b.rng.integers(2, 14)))


def draw_table(b: SceneBuilder, size: Piece, num_things: int) -> None:
    """Draw a table and ``num_things`` objects on it."""
    width, depth, height = size.width, size.depth, size.height
    top, thick = b.palette.furniture(), b.rng.uniform(0.02, 0.05)
    if b.rng.random() < 0.2:
        b.add("cylinder", (0, depth / 2, height - thick / 2), (width, depth, thick), top)
        b.add("cylinder", (0, depth / 2, height / 2), (0.09, 0.09, height - thick), top)
        b.add("cylinder", (0, depth / 2, 0.02), (depth * 0.6, depth * 0.6, 0.04), top)
    else:
        b.add("box", (0, depth / 2, height - thick / 2), (width, depth, thick), top)
        legs = top if b.rng.random() < 0.5 else b.palette.metal()
        draw_legs(b, width, depth, height - thick, b.rng.uniform(0.03, 0.08), legs)
        if b.rng.random() < 0.5:
            b.add("box", (0, depth / 2, height - thick - 0.04), (width * 0.9, depth * 0.85, 0.08), top)
    if b.rng.random() < 0.15:
        b.add("box", (0, depth / 2, height + 0.002), (width * 0.7, depth * 0.5, 0.004), b.palette.fabric())
    with b.at(0, depth / 2, height + 0.004):
        objects.clutter(b, width, depth, num_things)


def desk(b: SceneBuilder) -> Plan:
    """Plan a desk with a monitor, a keyboard and papers."""
    rng = b.rng
    size = Piece(rng.uniform(1.2, 1.8), rng.uniform(0.65, 0.85), rng.uniform(0.71, 0.76), work_top=True)

    def draw(b: SceneBuilder) -> None:
        draw_table(b, size, int(b.rng.integers(0, 5)))
        for x in (-0.3, 0.35) if b.rng.random() < 0.3 else (0.0,):
            with b.at(x, 0.2, size.height + 0.005):
                objects.monitor(b)
        with b.at(0, size.depth * 0.65, size.height + 0.005):
            objects.keyboard(b)
        if b.rng.random() < 0.5:
            b.add("box", (size.width / 2 - 0.25, size.depth / 2, 0.3), (0.4, 0.55, 0.58), b.palette.furniture())

    return size, draw


def coffee_table(b: SceneBuilder) -> Plan:
    """Plan a coffee table with a few objects."""
    rng = b.rng
    size = Piece(rng.uniform(0.7, 1.2), rng.uniform(0.45, 0.7), rng.uniform(0.36, 0.48), work_top=True)
    return size, lambda b: draw_table(b, size, int(b.rng.integers(1, 7)))


def chair(b: SceneBuilder) -> Plan:
    """Plan a chair: seat at 0.43-0.48 m, back to 0.8-1.0 m."""
    rng = b.rng
    size = Piece(rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.52), rng.uniform(0.8, 1.0))
    seat = rng.uniform(0.43, 0.48)

    def draw(b: SceneBuilder) -> None:
        frame = b.palette.furniture()
        cover = b.palette.fabric() if b.rng.random() < 0.5 else frame
        width, depth = size.width, size.depth
        mesh = "cushion" if b.rng.random() < 0.3 else "box"
        b.add(mesh, (0, depth / 2, seat - 0.02), (width, depth, 0.05), cover)
        draw_legs(b, width, depth, seat - 0.03, 0.035, frame)
        for x in (-1, 1):
            b.add(
                "box",
                (x * (width / 2 - 0.02), 0.02, (seat + size.height) / 2),
                (0.035, 0.035, size.height - seat),
                frame,
            )
        if b.rng.random() < 0.5:
            b.add("box", (0, 0.02, size.height - 0.15), (width, 0.03, 0.28), cover)
        else:
            for k in range(int(b.rng.integers(2, 5))):
                b.add("box", (0, 0.02, size.height - 0.05 - 0.11 * k), (width, 0.02, 0.05), frame)

    return size, draw


def office_chair(b: SceneBuilder) -> Plan:
    """Plan an office chair on five castors."""
    size = Piece(0.6, 0.6, b.rng.uniform(0.9, 1.15))

    def draw(b: SceneBuilder) -> None:
        cover, frame = b.palette.fabric(), b.palette.plain(0.1)
        for k in range(5):
            angle = 2 * math.pi * k / 5
            centre = (0.14 * math.cos(angle), 0.3 + 0.14 * math.sin(angle), 0.08)
            b.add("box", centre, (0.28, 0.04, 0.03), frame, tilted(2, angle))
            wheel = (0.27 * math.cos(angle), 0.3 + 0.27 * math.sin(angle), 0.03)
            b.add("sphere", wheel, (0.06, 0.06, 0.06), frame)
        b.add("cylinder", (0, 0.3, 0.26), (0.06, 0.06, 0.36), frame)
        b.add("cushion", (0, 0.3, 0.47), (0.48, 0.48, 0.1), cover)
        b.add("cushion", (0, 0.06, size.height - 0.27), (0.44, 0.09, 0.55), cover)
        if b.rng.random() < 0.6:
            for x in (-0.27, 0.27):
                b.add("box", (x, 0.3, 0.68), (0.05, 0.28, 0.03), frame)
                b.add("box", (x, 0.3, 0.57), (0.03, 0.04, 0.2), frame)

    return size, draw


def stool(b: SceneBuilder) -> Plan:
    """Plan a stool of 0.4 to 0.75 m."""
    height, width = b.rng.uniform(0.4, 0.75), b.rng.uniform(0.3, 0.4)

    def draw(b: SceneBuilder) -> None:
        material = b.palette.furniture()
        b.add("cylinder", (0, width / 2, height - 0.02), (width, width, 0.04), material)
        draw_legs(b, width * 0.85, width, height - 0.04, 0.03, material)

    return Piece(width, width, height), draw


def sofa(b: SceneBuilder) -> Plan:
    """Plan an armchair or sofa: seat at about 0.43 m, back to about 0.85 m."""
    rng = b.rng
    seats = int(rng.integers(1, 4))
    size = Piece(0.35 + 0.62 * seats, rng.uniform(0.8, 0.95), rng.uniform(0.75, 0.95))

    def draw(b: SceneBuilder) -> None:
        cover, mesh = b.palette.fabric(), "rounded" if b.rng.random() < 0.6 else "box"
        width, depth = size.width, size.depth
        b.add(mesh, (0, depth / 2, 0.2), (width, depth, 0.3), cover)
        b.add(mesh, (0, 0.12, size.height / 2 + 0.03), (width, 0.22, size.height - 0.08), cover)
        for x in (-1, 1):
            b.add(mesh, (x * (width / 2 - 0.08), depth / 2, 0.34), (0.17, depth, 0.55), cover)
        for k in range(seats):
            middle = (k - (seats - 1) / 2) * 0.62
            b.add("cushion", (middle, depth / 2 + 0.08, 0.4), (0.62, depth - 0.22, 0.17), cover)
            if b.rng.random() < 0.6:
                lean = tilted(0, b.rng.uniform(-0.5, -0.1))
                b.add("cushion", (middle, 0.34, 0.64), (0.45, 0.16, 0.42), b.palette.fabric(), lean)

    return size, draw


def bed(b: SceneBuilder) -> Plan:
    """Plan a bed with pillows."""
    size = Piece(b.rng.uniform(0.9, 1.8), b.rng.uniform(1.95, 2.1), b.rng.uniform(0.8, 1.2))

    def draw(b: SceneBuilder) -> None:
        frame, sheet = b.palette.furniture(), b.palette.fabric()
        width, depth = size.width, size.depth
        b.add("box", (0, 0.03, size.height / 2), (width, 0.06, size.height), frame)
        b.add("box", (0, depth / 2, 0.2), (width, depth, 0.2), frame)
        b.add("rounded", (0, depth / 2, 0.42), (width * 0.98, depth * 0.98, 0.26), b.palette.fabric())
        b.add("rounded", (0, depth * 0.62, 0.46), (width * 1.04, depth * 0.72, 0.26), sheet)
        for x in (-0.22, 0.22) if width > 1.2 else (0.0,):
            b.add("cushion", (x * width, 0.3, 0.6), (min(0.65, width * 0.45), 0.4, 0.16), b.palette.fabric())

    return size, draw


def shelf(b: SceneBuilder) -> Plan:
    """Plan an open bookshelf or rack with its contents."""
    rng = b.rng
    size = Piece(rng.uniform(0.6, 1.2), rng.uniform(0.25, 0.4), rng.uniform(0.8, 2.1))

    def draw(b: SceneBuilder) -> None:
        material = b.palette.furniture()
        width, depth, height = size.width, size.depth, size.height
        for x in (-1, 1):
            b.add("box", (x * (width / 2 - 0.01), depth / 2, height / 2), (0.02, depth, height), material)
        if b.rng.random() < 0.7:
            b.add("box", (0, 0.006, height / 2), (width, 0.012, height), material)
        count = max(2, round(height / b.rng.uniform(0.28, 0.42)))
        pitch = (height - 0.06) / count
        for k in range(count + 1):
            b.add("box", (0, depth / 2, 0.05 + pitch * k), (width - 0.03, depth, 0.02), material)
            if k < count and b.rng.random() < 0.85:
                with b.at(0, depth / 2, 0.06 + pitch * k):
                    objects.shelf_row(b, width - 0.05, depth, pitch - 0.03)

    return size, draw


def cabinet(b: SceneBuilder) -> Plan:
    """Plan a wardrobe, a dresser or a night stand with fronts and handles."""
    rng = b.rng
    height = float(rng.choice([rng.uniform(0.45, 0.6), rng.uniform(0.75, 1.2), rng.uniform(1.8, 2.2)]))
    size = Piece(rng.uniform(0.4, 0.6) if height < 0.65 else rng.uniform(0.6, 1.6), rng.uniform(0.4, 0.62), height)

    def draw(b: SceneBuilder) -> None:
        draw_fronts(b, size, b.palette.furniture(), base=0.06)
        if height < 1.3:
            with b.at(0, size.depth / 2, height):
                objects.clutter(b, size.width, size.depth, int(b.rng.integers(0, 6)))

    return size, draw


def draw_fronts(b: SceneBuilder, size: Piece, material: Material, base: float) -> None:
    """Draw a body with doors or drawers, 6 mm gaps and handles."""
    width, depth, height = size.width, size.depth, size.height
    b.add("box", (0, depth / 2 - 0.01, height / 2), (width, depth - 0.02, height), material)
    handle = b.palette.metal()
    tall = height > 1.3 or b.rng.random() < 0.5
    cols = max(1, round(width / 0.5)) if tall else max(1, round(width / 0.8))
    rows = 1 if tall else max(1, round((height - base) / 0.22))
    w, h = width / cols, (height - base) / rows
    front = material if b.rng.random() < 0.6 else b.palette.furniture()
    for i in range(cols):
        for j in range(rows):
            x, z = -width / 2 + (i + 0.5) * w, base + (j + 0.5) * h
            b.add("box", (x, depth - 0.005, z), (w - 0.006, 0.018, h - 0.006), front)
            if tall:
                b.add(
                    "box",
                    (x + (w / 2 - 0.05) * (1 if i % 2 == 0 else -1), depth + 0.015, z),
                    (0.012, 0.02, 0.14),
                    handle,
                )
            else:
                b.add("box", (x, depth + 0.015, z + h * 0.2), (min(0.16, w / 2), 0.02, 0.012), handle)


def kitchen_run(b: SceneBuilder) -> Plan:
    """Plan base units (0.9 m) with a worktop, a splashback, wall units, a tap and objects."""
    rng = b.rng
    size = Piece(rng.uniform(1.5, 3.2), 0.62, rng.uniform(0.86, 0.94), work_top=True)

    def draw(b: SceneBuilder) -> None:
        units, width = b.palette.furniture(), size.width
        draw_fronts(b, Piece(width, 0.6, size.height - 0.04), units, base=0.1)
        top = b.palette.floor() if b.rng.random() < 0.5 else b.palette.furniture()
        b.add("box", (0, 0.31, size.height - 0.02), (width + 0.02, 0.64, 0.04), top)
        b.add("box", (0, 0.004, size.height + 0.25), (width, 0.008, 0.5), b.palette.wall())
        if b.rng.random() < 0.7:
            with b.at(0, 0, size.height + 0.5):
                draw_fronts(b, Piece(width, 0.34, 0.7), units, base=0.0)
        steel, x = b.palette.metal(), b.rng.uniform(-0.3, 0.3) * width
        b.add("box", (x, 0.33, size.height + 0.001), (0.5, 0.4, 0.006), steel)
        b.add("cylinder", (x, 0.1, size.height + 0.13), (0.025, 0.025, 0.26), steel)
        b.add("cylinder", (x, 0.18, size.height + 0.26), (0.02, 0.02, 0.18), steel, tilted(0, math.pi / 2))
        hob = -x if abs(x) > 0.45 else x + 0.7
        if abs(hob) < width / 2 - 0.3:
            b.add("box", (hob, 0.33, size.height + 0.003), (0.58, 0.5, 0.006), b.palette.plain(0.1))
        with b.at(0, 0.3, size.height + 0.006):
            objects.clutter(b, width, 0.5, int(b.rng.integers(3, 12)))

    return size, draw


def fridge(b: SceneBuilder) -> Plan:
    """Plan a fridge with two doors."""
    size = Piece(b.rng.uniform(0.55, 0.75), 0.65, b.rng.uniform(1.4, 1.95))

    def draw(b: SceneBuilder) -> None:
        body, split = b.palette.plain(0.3, 0.2), size.height * b.rng.uniform(0.3, 0.65)
        b.add("box", (0, 0.3, size.height / 2), (size.width, 0.6, size.height), body)
        for low, high in ((0.05, split), (split + 0.01, size.height)):
            b.add("box", (0, 0.62, (low + high) / 2), (size.width, 0.04, high - low), body)
            b.add("box", (size.width * 0.4, 0.66, (low + high) / 2), (0.03, 0.03, 0.35), b.palette.metal())

    return size, draw


def tv_stand(b: SceneBuilder) -> Plan:
    """Plan a low cabinet with a television."""
    size = Piece(b.rng.uniform(1.1, 1.8), 0.4, b.rng.uniform(0.4, 0.6))

    def draw(b: SceneBuilder) -> None:
        draw_fronts(b, size, b.palette.furniture(), base=0.05)
        width = min(size.width * 0.95, b.rng.uniform(0.8, 1.4))
        height = width * 0.58
        z = size.height + 0.06 + height / 2
        b.add("box", (0, 0.2, size.height + 0.03), (width * 0.4, 0.2, 0.06), b.palette.plain(0.1))
        b.add("box", (0, 0.2, z), (width, 0.05, height), b.palette.plain(0.05))
        b.add("box", (0, 0.226, z), (width * 0.97, 0.004, height * 0.95), b.palette.screen())

    return size, draw
