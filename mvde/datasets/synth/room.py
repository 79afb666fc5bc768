"""Rooms: walls with doors and windows, floor, ceiling, lamps, and objects on walls."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mvde.datasets.synth.builder import Material, SceneBuilder, Vector

WALL_THICKNESS_M = 0.14


@dataclass(frozen=True)
class Opening:
    """Opening in a wall, in metres along the wall and above the floor; ``kind``: door, doorway or window."""

    left: float
    right: float
    bottom: float
    top: float
    kind: str


@dataclass
class Wall:
    """Frame (start, yaw; +y points into the room), length and openings of a wall."""

    x: float
    y: float
    yaw: float
    length: float
    openings: list[Opening] = field(default_factory=list)


@dataclass
class Room:
    """Room [0, width] x [0, depth] x [0, height], in metres."""

    width: float
    depth: float
    height: float
    walls: list[Wall]
    lamps: list[Vector] = field(default_factory=list)
    sunny: bool = False


def draw_room(b: SceneBuilder, width: float, depth: float, height: float, max_doors: int = 2) -> Room:
    """Draw an empty room and return it with its openings and lamps."""
    corners = [(0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth)]
    lengths = [width, depth, width, depth]
    walls = [Wall(*corners[k], k * math.pi / 2, lengths[k]) for k in range(4)]
    room = Room(width, depth, height, walls)
    wall_material = b.palette.wall()
    trim = b.palette.plain(0.15, 0.3) if b.rng.random() < 0.6 else b.palette.wood()
    accent = int(b.rng.integers(0, 8))
    doors = int(b.rng.integers(1, max_doors + 1))
    for k in b.rng.permutation(4):
        wall = walls[k]
        _choose_openings(b, room, wall, has_door=doors > 0)
        doors -= any(o.kind != "window" for o in wall.openings)
        skin = b.palette.wall() if k == accent else wall_material
        with b.at(wall.x, wall.y, 0.0, wall.yaw):
            _draw_wall(b, wall, height, skin, trim)
            with b.decoration():
                _hang_things(b, wall, height)
    _draw_floor_and_ceiling(b, room)
    _draw_lamps(b, room)
    return room


def _choose_openings(b: SceneBuilder, room: Room, wall: Wall, has_door: bool) -> None:
    rng, x = b.rng, float(b.rng.uniform(0.15, 0.6))
    sill = rng.uniform(0.75, 1.05) if rng.random() < 0.8 else 0.08
    window_top = min(room.height - 0.12, rng.uniform(2.0, 2.35))
    window_likely = rng.random() < 0.45
    while x < wall.length - 1.2:
        if has_door and rng.random() < 0.6:
            wide = rng.uniform(0.76, 0.95)
            kind = "doorway" if rng.random() < 0.4 else "door"
            wall.openings.append(Opening(x, x + wide, 0.0, rng.uniform(1.98, 2.08), kind))
            has_door = False
        elif window_likely and rng.random() < 0.7:
            wide = min(rng.uniform(0.7, 2.0), wall.length - x - 0.2)
            wall.openings.append(Opening(x, x + wide, sill, window_top, "window"))
            room.sunny = True
        else:
            x += 0.7
            continue
        x = wall.openings[-1].right + rng.uniform(0.3, 1.2)


def _block(b: SceneBuilder, x0: float, x1: float, z0: float, z1: float, material: Material) -> None:
    if x1 - x0 > 1e-3 and z1 - z0 > 1e-3:
        t = WALL_THICKNESS_M
        b.add("box", ((x0 + x1) / 2, -t / 2, (z0 + z1) / 2), (x1 - x0, t, z1 - z0), material)


def _draw_wall(b: SceneBuilder, wall: Wall, height: float, skin: Material, trim: Material) -> None:
    x = -WALL_THICKNESS_M
    board = b.rng.uniform(0.05, 0.13) if b.rng.random() < 0.8 else 0.0
    for o in [*wall.openings, None]:
        stop = wall.length + WALL_THICKNESS_M if o is None else o.left
        _block(b, x, stop, 0.0, height, skin)
        if board and stop - x > 0.05:
            b.add("box", ((x + stop) / 2, 0.007, board / 2), (stop - x, 0.014, board), trim)
        if o is None:
            break
        _block(b, o.left, o.right, o.top, height, skin)
        _block(b, o.left, o.right, 0.0, o.bottom, skin)
        _draw_opening(b, o, trim)
        x = o.right


def _frame(b: SceneBuilder, o: Opening, trim: Material, wide: float) -> None:
    middle, tall = (o.left + o.right) / 2, o.top - o.bottom
    for x in (o.left - wide / 2, o.right + wide / 2):
        b.add("box", (x, -0.06, o.bottom + tall / 2), (wide, 0.17, tall), trim)
    b.add("box", (middle, -0.06, o.top + wide / 2), (o.right - o.left + 2 * wide, 0.17, wide), trim)


def _draw_opening(b: SceneBuilder, o: Opening, trim: Material) -> None:
    _frame(b, o, trim, b.rng.uniform(0.05, 0.09))
    if o.kind == "door":
        _draw_door_leaf(b, o)
    elif o.kind == "doorway":
        _draw_next_room(b, o)
        if b.rng.random() < 0.6:
            with b.at(o.left + 0.02, 0.0, 0.0, b.rng.uniform(0.6, 1.9)):
                _draw_door_leaf(b, Opening(0.0, o.right - o.left, 0.0, o.top, "door"))
    else:
        _draw_window(b, o, trim)


def _draw_door_leaf(b: SceneBuilder, o: Opening) -> None:
    leaf, middle, wide = b.palette.furniture(), (o.left + o.right) / 2, o.right - o.left
    b.add("box", (middle, -0.03, o.top / 2), (wide - 0.008, 0.04, o.top - 0.01), leaf)
    style = b.rng.integers(3)
    for low, high in ((0.2, 0.9), (1.15, 1.85)) if style == 0 else ((0.2, 1.85),) if style == 1 else ():
        for x in (-0.22, 0.22) if style == 0 else (0.0,):
            size = (wide * (0.34 if style == 0 else 0.7), 0.05, high - low)
            b.add("box", (middle + x * wide, -0.03, (low + high) / 2), size, leaf)
    metal = b.palette.metal()
    b.add("box", (o.right - 0.07, -0.03, 1.03), (0.04, 0.06, 0.2), metal)
    b.add("box", (o.right - 0.12, 0.03, 1.05), (0.12, 0.02, 0.02), metal)


def _draw_next_room(b: SceneBuilder, o: Opening) -> None:
    """Draw a dim space behind a doorway, so that the view ends on a surface."""
    far, middle, wide = b.rng.uniform(1.2, 3.5), (o.left + o.right) / 2, b.rng.uniform(2.0, 4.0)
    y, skin = -WALL_THICKNESS_M - far / 2, b.palette.wall()
    b.add("box", (middle, y, -0.05), (wide, far, 0.1), b.palette.floor())
    b.add("box", (middle, y, 2.45), (wide, far, 0.1), b.palette.plain(0.1, 0.4))
    b.add("box", (middle, -WALL_THICKNESS_M - far - 0.05, 1.2), (wide, 0.1, 2.5), skin)
    for x in (-1, 1):
        b.add("box", (middle + x * wide / 2, y, 1.2), (0.1, far, 2.5), skin)
    if b.rng.random() < 0.5:
        b.add("box", (middle, -WALL_THICKNESS_M - far + 0.2, 0.4), (0.8, 0.4, 0.8), b.palette.furniture())


def _draw_window(b: SceneBuilder, o: Opening, trim: Material) -> None:
    middle, wide, tall = (o.left + o.right) / 2, o.right - o.left, o.top - o.bottom
    height = o.bottom + tall / 2
    b.add("box", (middle, -0.1, height), (wide, 0.01, tall), b.palette.outside(float(b.rng.uniform(0.8, 4.0))))
    panes = max(1, round(wide / 0.7))
    for k in range(panes + 1):
        b.add("box", (o.left + wide * k / panes, -0.09, height), (0.05, 0.05, tall), trim)
    for z in (o.bottom + 0.025, o.top - 0.025):
        b.add("box", (middle, -0.09, z), (wide, 0.05, 0.05), trim)
    b.add("box", (middle, 0.03, o.bottom - 0.015), (wide + 0.1, 0.2, 0.03), trim)
    style = b.rng.random()
    if style < 0.35:
        _draw_curtains(b, o)
    elif style < 0.5:
        slats, drop = b.palette.plain(0.3, 0.3), tall * b.rng.uniform(0.2, 1.0)
        for k in range(int(drop / 0.045)):
            b.add("box", (middle, -0.03, o.top - 0.03 - 0.045 * k), (wide, 0.03, 0.012), slats)
    if o.bottom > 0.6 and b.rng.random() < 0.5:
        _draw_radiator(b, middle, min(wide, 1.2), o.bottom - 0.2)


def _draw_curtains(b: SceneBuilder, o: Opening) -> None:
    cloth, low = b.palette.fabric(), 0.03 if b.rng.random() < 0.6 else o.bottom - 0.1
    top, wide = o.top + 0.1, (o.right - o.left) * b.rng.uniform(0.2, 0.5)
    mesh = "curtain" if b.rng.random() < 0.5 else "curtain_fine"
    for x in (o.left - 0.05 + wide / 2, o.right + 0.05 - wide / 2):
        b.add(mesh, (x, 0.16, (low + top) / 2), (wide, 0.1, top - low), cloth)
    rod = ((o.left + o.right) / 2, 0.16, top + 0.01)
    b.add("box", rod, (o.right - o.left + 0.5, 0.02, 0.025), b.palette.metal())


def _draw_radiator(b: SceneBuilder, x: float, wide: float, top: float) -> None:
    white = b.palette.plain(0.05, 0.5)
    b.add("box", (x, 0.07, 0.12 + (top - 0.12) / 2), (wide, 0.04, top - 0.16), white)
    for k in range(int(wide / 0.06)):
        b.add("box", (x - wide / 2 + 0.03 + 0.06 * k, 0.09, 0.12 + (top - 0.12) / 2), (0.035, 0.05, top - 0.14), white)


def _hang_things(b: SceneBuilder, wall: Wall, height: float) -> None:
    """Hang pictures, a clock, a whiteboard; add a switch beside each door and a few sockets."""

    def is_free(x: float, half: float) -> bool:
        return all(x + half < o.left - 0.12 or x - half > o.right + 0.12 for o in wall.openings)

    for o in wall.openings:
        if o.kind != "window" and is_free(o.right + 0.25, 0.05):
            b.add("box", (o.right + 0.25, 0.005, 1.1), (0.08, 0.012, 0.08), b.palette.plain(0.05, 0.6))
    for _ in range(int(b.rng.integers(0, 5))):
        wide, tall = b.rng.uniform(0.2, 1.1), b.rng.uniform(0.25, 0.9)
        x, z = b.rng.uniform(0.1, max(0.2, wall.length - 0.1)), b.rng.uniform(1.4, 1.7)
        if not is_free(x, wide / 2) or x < wide / 2 or x > wall.length - wide / 2:
            continue
        if b.rng.random() < 0.75:
            b.add("box", (x, 0.012, z), (wide + 0.05, 0.024, tall + 0.05), b.palette.furniture())
            b.add("box", (x, 0.015, z), (wide, 0.024, tall), b.palette.picture())
        elif b.rng.random() < 0.5:
            b.add("box", (x, 0.012, z), (wide * 1.3, 0.02, tall), b.palette.plain(0.1, 0.5))
        else:
            b.add("sphere", (x, 0.02, min(z + 0.4, height - 0.3)), (0.3, 0.04, 0.3), b.palette.picture())
    for _ in range(int(b.rng.integers(0, 3))):
        x = b.rng.uniform(0.2, wall.length - 0.2)
        if is_free(x, 0.05):
            b.add("box", (x, 0.005, 0.3), (0.08, 0.012, 0.08), b.palette.plain(0.05, 0.6))


def _draw_floor_and_ceiling(b: SceneBuilder, room: Room) -> None:
    w, d, h = room.width, room.depth, room.height
    t = 2 * WALL_THICKNESS_M
    b.add("box", (w / 2, d / 2, -0.05), (w + t, d + t, 0.1), b.palette.floor())
    ceiling = b.palette.plain(0.1, 0.5) if b.rng.random() < 0.85 else b.palette.wood()
    b.add("box", (w / 2, d / 2, h + 0.05), (w + t, d + t, 0.1), ceiling)
    with b.decoration():
        _lay_rugs(b, room)
    if b.rng.random() < 0.15:
        side = b.rng.uniform(0.25, 0.5)
        x, y = b.rng.uniform(0.3, 0.7) * w, b.rng.uniform(0.3, 0.7) * d
        b.add("box", (x, y, h / 2), (side, side, h), b.palette.wall())
    if b.rng.random() < 0.2:
        for y in np.arange(0.5, d, b.rng.uniform(0.8, 1.5)):
            b.add("box", (w / 2, float(y), h - 0.08), (w, 0.12, 0.16), ceiling)


def _lay_rugs(b: SceneBuilder, room: Room) -> None:
    w, d = room.width, room.depth
    for _ in range(int(b.rng.integers(0, 3))):
        wide, deep = b.rng.uniform(0.6, min(3.0, w * 0.7)), b.rng.uniform(0.5, min(2.2, d * 0.7))
        x, y = b.rng.uniform(wide / 2, w - wide / 2), b.rng.uniform(deep / 2, d - deep / 2)
        rug = b.palette.fabric() if b.rng.random() < 0.7 else b.palette.picture()
        mesh = "cylinder" if b.rng.random() < 0.2 else "box"
        b.add(mesh, (x, y, 0.006 + b.rng.uniform(0, 0.004)), (wide, deep, 0.012), rug)


def _draw_lamps(b: SceneBuilder, room: Room) -> None:
    style, h = int(b.rng.integers(4)), room.height
    x, y = room.width * b.rng.uniform(0.3, 0.7), room.depth * b.rng.uniform(0.3, 0.7)
    warm = (1.0, b.rng.uniform(0.75, 1.0), b.rng.uniform(0.45, 0.95))
    glow = b.palette.glowing(warm, b.rng.uniform(2.0, 5.0))
    if style == 0:
        drop = b.rng.uniform(0.3, 0.8)
        b.add("cylinder", (x, y, h - drop / 2), (0.015, 0.015, drop), b.palette.plain(0.1))
        b.add("shade", (x, y, h - drop), (0.42, 0.42, 0.25), b.palette.fabric())
        b.add("sphere", (x, y, h - drop - 0.04), (0.12, 0.12, 0.12), glow)
        room.lamps.append((x, y, h - drop - 0.2))
        return
    grid = [(x, y)] if style == 1 else [(room.width * u, room.depth * v) for u in (0.25, 0.75) for v in (0.25, 0.75)]
    for u, v in grid:
        if style == 1:
            b.add("sphere", (u, v, h), (0.4, 0.4, 0.2), glow)
        elif style == 2:
            b.add("box", (u, v, h), (0.6, 0.6, 0.03), glow)
        else:
            b.add("box", (u, v, h - 0.04), (0.16, 1.2, 0.08), glow)
    room.lamps.append((x, y, h - 0.15))
