"""Furnished and lit scenes, deterministic from (seed, scene number)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from mvde.datasets.synth import furniture as f
from mvde.datasets.synth import props
from mvde.datasets.synth.builder import FloatArray, SceneBuilder, Vector
from mvde.datasets.synth.room import Room, Wall, draw_room

Rect = tuple[float, float, float, float]  # x0, y0, x1, y1 in metres


@dataclass(frozen=True)
class Lights:
    """One lamp and one sun with shadows, two fill lights without, and ambient light (linear RGB)."""

    lamp_position: Vector
    lamp_colour: Vector
    sun_direction: Vector
    sun_colour: Vector
    fill_position: tuple[Vector, Vector]
    fill_colour: tuple[Vector, Vector]
    ambient_up: Vector
    ambient_down: Vector
    corner_darkening: float


@dataclass(frozen=True)
class WorkTop:
    """Surface of a table: centre and size in metres, rotated by yaw."""

    centre: Vector
    yaw: float
    width: float
    depth: float


@dataclass(frozen=True)
class Scene:
    """Scene data for the renderer and the camera sampler."""

    instances: dict[str, FloatArray]
    size: Vector
    obstacles: tuple[Rect, ...]
    work_tops: tuple[WorkTop, ...]
    lights: Lights


@dataclass(frozen=True)
class _Kind:
    weight: float
    side_m: tuple[float, float]
    against_wall: tuple[f.Planner, ...]
    free: tuple[f.Planner, ...]


_KINDS = (
    _Kind(1.0, (3.0, 6.5), (f.sofa, f.sofa, f.tv_stand, f.shelf, f.cabinet, props.plant, props.floor_lamp, f.desk),
          (f.coffee_table, f.sofa, f.table, f.chair, props.bin_or_cone)),
    _Kind(0.8, (2.5, 4.8), (f.bed, f.bed, f.cabinet, f.cabinet, f.desk, f.shelf, props.floor_lamp, props.plant),
          (f.chair, f.stool)),
    _Kind(1.0, (2.5, 5.0), (f.kitchen_run, f.kitchen_run, f.fridge, f.cabinet, f.shelf),
          (f.table, f.chair, f.stool, f.chair)),
    _Kind(1.0, (3.0, 7.5), (f.desk, f.desk, f.cabinet, f.shelf, props.plant, f.table),
          (f.desk, f.office_chair, f.office_chair, f.table, props.bin_or_cone, props.person)),
    _Kind(0.8, (4.5, 8.0), (props.rack, props.rack, props.rack, props.cartons, f.table),
          (props.cartons, props.cartons, props.bin_or_cone, props.person, props.rack)),
    _Kind(0.8, (2.5, 6.0), (f.table, f.desk, f.shelf, f.cabinet), (f.table, f.table, f.chair, props.abstract, f.stool)),
    _Kind(0.7, (2.5, 6.5), (props.abstract, f.shelf, props.cartons, f.table),
          (props.abstract, props.abstract, props.abstract, f.chair, f.table)),
)  # fmt: skip
_CORRIDOR = _Kind(
    0.0,
    (0.0, 0.0),
    (f.cabinet, props.plant, f.shelf, props.cartons, props.bin_or_cone),
    (props.bin_or_cone, props.person),
)
_CORRIDOR_SHARE = 0.1


class _Furnisher:
    """Placement of pieces without overlap, clear of doors and inside the room."""

    def __init__(self, builder: SceneBuilder, room: Room) -> None:
        self.b, self.room = builder, room
        self.obstacles: list[Rect] = []
        self.work_tops: list[WorkTop] = []
        self._doors = [
            self._rect(w, o.left, o.right, 0.9) for w in room.walls for o in w.openings if o.kind != "window"
        ]

    @staticmethod
    def _rect(wall: Wall, left: float, right: float, deep: float) -> Rect:
        c, s = round(math.cos(wall.yaw)), round(math.sin(wall.yaw))
        ends = [(wall.x + c * u - s * v, wall.y + s * u + c * v) for u, v in ((left, 0.0), (right, deep))]
        (x0, y0), (x1, y1) = ends
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)

    def _fits(self, rect: Rect) -> bool:
        inside = (
            rect[0] > -0.01
            and rect[1] > -0.01
            and rect[2] < self.room.width + 0.01
            and rect[3] < self.room.depth + 0.01
        )
        return inside and not any(_overlap(rect, other) for other in (*self.obstacles, *self._doors))

    def _draw(self, x: float, y: float, yaw: float, rect: Rect, piece: f.Piece, draw: f.Draw) -> None:
        self.obstacles.append(rect)
        with self.b.at(x, y, 0.0, yaw), nullcontext() if piece.work_top else self.b.decoration():
            draw(self.b)
            if piece.work_top:
                centre = self.b.world(0.0, piece.depth / 2, piece.height)
                self.work_tops.append(WorkTop(centre, yaw, piece.width, piece.depth))

    def against_wall(self, planner: f.Planner) -> None:
        """Place a piece against a random wall if a free position is found."""
        rng = self.b.rng
        piece, draw = planner(self.b)
        for _ in range(6):
            wall = self.room.walls[int(rng.integers(4))]
            if wall.length < piece.width + 0.1:
                continue
            x, gap = rng.uniform(piece.width / 2, wall.length - piece.width / 2), 0.02 + 0.1 * rng.random() ** 3
            left, right = x - piece.width / 2, x + piece.width / 2
            hides = [o for o in wall.openings if o.kind == "window" and o.right > left and o.left < right]
            rect = self._rect(wall, left, right, piece.depth + gap)
            if any(piece.height > o.bottom + 0.05 for o in hides) or not self._fits(rect):
                continue
            c, s = math.cos(wall.yaw), math.sin(wall.yaw)
            self._draw(wall.x + c * x - s * gap, wall.y + s * x + c * gap, wall.yaw, rect, piece, draw)
            return

    def free_standing(self, planner: f.Planner) -> None:
        """Place a piece in the room if a free position is found."""
        rng = self.b.rng
        piece, draw = planner(self.b)
        for _ in range(5):
            yaw = float(rng.integers(4)) * math.pi / 2 + (rng.uniform(-0.8, 0.8) if rng.random() < 0.5 else 0.0)
            cx, cy = rng.uniform(0.2, self.room.width - 0.2), rng.uniform(0.2, self.room.depth - 0.2)
            c, s = math.cos(yaw), math.sin(yaw)
            hx = (abs(c) * piece.width + abs(s) * piece.depth) / 2
            hy = (abs(s) * piece.width + abs(c) * piece.depth) / 2
            rect = (cx - hx, cy - hy, cx + hx, cy + hy)
            if self._fits(rect):
                self._draw(cx + s * piece.depth / 2, cy - c * piece.depth / 2, yaw, rect, piece, draw)
                return


def _overlap(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def build_scene(rng: np.random.Generator, groups: dict[str, tuple[int, ...]], *, bare: bool = False) -> Scene:
    """Build a furnished, lit room; ``groups`` names the texture layers (see ``textures.build_textures``).

    A ``bare`` one has surfaces of one colour, nothing on its walls, no rug, and no furniture but tables and worktops.
    """
    b = SceneBuilder(rng, groups, bare=bare)
    if rng.random() < _CORRIDOR_SHARE:
        kind, sides, doors = _CORRIDOR, [rng.uniform(1.3, 2.2), rng.uniform(5.0, 9.0)], 4
    else:
        weights = np.array([k.weight for k in _KINDS])
        kind = _KINDS[int(rng.choice(len(_KINDS), p=weights / weights.sum()))]
        sides, doors = [rng.uniform(*kind.side_m), rng.uniform(*kind.side_m)], 2
    height = rng.uniform(2.3, 3.2)
    room = draw_room(b, sides[0], sides[1], height, doors)
    if bare:
        b.strip()
    place = _Furnisher(b, room)
    area, density = sides[0] * sides[1], rng.uniform(0.5, 1.2)
    _repeat(rng, place.against_wall, kind.against_wall, 2 + int(density * 2.2 * (sides[0] + sides[1]) / 2.5))
    _repeat(rng, place.free_standing, kind.free, 1 + int(density * area / 3.5))
    lights = _choose_lights(rng, room)
    size = (room.width, room.depth, room.height)
    return Scene(b.instances(), size, tuple(place.obstacles), tuple(place.work_tops), lights)


def _repeat(
    rng: np.random.Generator, place: Callable[[f.Planner], None], planners: tuple[f.Planner, ...], count: int
) -> None:
    for _ in range(count):
        place(planners[int(rng.integers(len(planners)))])


def _tone(rng: np.random.Generator, strength: float) -> Vector:
    """Return a light colour between candlelight and an overcast sky."""
    warmth = rng.uniform(-0.15, 0.35)
    return strength, strength * (1 - 0.35 * max(warmth, 0)), strength * (1 - warmth)


def _choose_lights(rng: np.random.Generator, room: Room) -> Lights:
    fills: list[Vector] = []
    for _ in range(2):
        fills.append(
            (
                rng.uniform(0.1, 0.9) * room.width,
                rng.uniform(0.1, 0.9) * room.depth,
                rng.uniform(1.2, room.height - 0.2),
            )
        )
    windows = [w.yaw - math.pi / 2 for w in room.walls if any(o.kind == "window" for o in w.openings)]
    azimuth = float(rng.choice(windows or [0.0])) + rng.uniform(-1.0, 1.0)  # the sun shines in through a window
    elevation = rng.uniform(0.3, 1.1)
    towards_sun = (
        math.cos(azimuth) * math.cos(elevation),
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
    )
    day = room.sunny and rng.random() < 0.8
    lamp_on = rng.random() < (0.75 if day else 1.0)
    ambient = rng.uniform(0.15, 0.75)
    return Lights(
        lamp_position=room.lamps[0],
        lamp_colour=_tone(rng, rng.uniform(2.5, 7.0) if lamp_on else 0.4),
        sun_direction=towards_sun,
        sun_colour=_tone(rng, rng.uniform(2.0, 7.0) if day and rng.random() < 0.7 else 0.0),
        fill_position=(fills[0], fills[1]),
        fill_colour=(_tone(rng, rng.uniform(0.0, 1.2)), _tone(rng, rng.uniform(0.0, 0.8))),
        ambient_up=_tone(rng, ambient),
        ambient_down=_tone(rng, ambient * rng.uniform(0.4, 0.9)),
        corner_darkening=rng.uniform(0.3, 0.65),
    )
