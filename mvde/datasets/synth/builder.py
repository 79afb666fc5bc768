"""Scene instances, placed in nested local frames, and their materials."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Vector = tuple[float, float, float]

# Instance layout in the vertex buffer: rotation columns (9), position (3), size (3), two colours (6), texture layer,
# texture period in metres (negative: fitted to the face), gloss, glow.
INSTANCE_FLOATS = 25
_LIGHT, _DARK = slice(15, 18), slice(18, 21)


@dataclass(frozen=True)
class Material:
    """Texture layer repeated every ``period_m`` metres that blends ``dark`` and ``light`` (linear RGB)."""

    layer: int
    period_m: float
    light: Vector
    dark: Vector
    gloss: float = 0.0
    glow: float = 0.0


class Palette:
    """Random materials by kind."""

    def __init__(self, rng: np.random.Generator, groups: dict[str, tuple[int, ...]]) -> None:
        self._rng = rng
        self._groups = groups

    def layers(self, group: str) -> tuple[int, ...]:
        """Return the numbers of a group's texture layers."""
        return self._groups[group]

    def _layer(self, group: str) -> int:
        numbers = self._groups[group]
        return numbers[int(self._rng.integers(len(numbers)))]

    def colour(self, low: float = 0.05, high: float = 0.8, saturation: float = 0.6) -> Vector:
        """Return a linear RGB colour of random value, hue and saturation (at most the given one)."""
        rng = self._rng
        value = rng.uniform(low**0.5, high**0.5) ** 2
        hue = rng.uniform(0, 6) + np.array([0.0, 4.0, 2.0])
        pure = np.clip(np.abs(hue % 6 - 3) - 1, 0, 1)
        mixed = value * (1 - rng.uniform(0, saturation) * (1 - pure))
        return float(mixed[0]), float(mixed[1]), float(mixed[2])

    def _brown(self) -> Vector:
        value, warmth = self._rng.uniform(0.12, 0.85) ** 2 + 0.02, self._rng.uniform(0.45, 0.8)
        return value, value * warmth, value * warmth**2.2

    def _mix(self, group: str, period_m: float, light: Vector, contrast: float, gloss: float) -> Material:
        dark = (light[0] * (1 - contrast), light[1] * (1 - contrast), light[2] * (1 - contrast))
        return Material(self._layer(group), period_m, light, dark, gloss)

    def wood(self) -> Material:
        """Return wood in a random brown."""
        rng = self._rng
        return self._mix("wood", rng.uniform(0.3, 0.9), self._brown(), rng.uniform(0.5, 1.0), rng.uniform(0.0, 0.35))

    def plain(self, saturation: float = 0.9, low: float = 0.02) -> Material:
        """Return paint or plastic."""
        rng = self._rng
        return self._mix("plaster", 0.8, self.colour(low, 0.85, saturation), 0.4, rng.uniform(0.0, 0.7))

    def metal(self) -> Material:
        """Return dark or grey metal, glossy."""
        rng = self._rng
        return self._mix("plaster", 0.5, self.colour(0.02, 0.6, 0.1), 0.3, rng.uniform(0.5, 1.0))

    def fabric(self) -> Material:
        """Return woven or patterned cloth."""
        rng = self._rng
        if rng.random() < 0.3:
            return Material(
                self._layer("pattern"), rng.uniform(0.1, 0.5), self.colour(0.1, 0.8), self.colour(0.02, 0.5)
            )
        return self._mix(str(rng.choice(["weave", "carpet"])), rng.uniform(0.15, 0.4), self.colour(0.02, 0.7), 0.6, 0.0)

    def furniture(self) -> Material:
        """Return wood or paint for furniture."""
        return self.wood() if self._rng.random() < 0.65 else self.plain(0.5)

    def ceramic(self) -> Material:
        """Return glossy ceramic."""
        if self._rng.random() < 0.25:
            return replace(self.fabric(), gloss=0.6, period_m=0.1)
        return replace(self.plain(0.7, 0.2), gloss=0.8)

    def picture(self) -> Material:
        """Return a picture fitted to the face."""
        return Material(self._layer("picture"), -1.0, (1, 1, 1), (0, 0, 0), float(self._rng.uniform(0, 0.5)))

    def text(self) -> Material:
        """Return a page of text fitted to the face."""
        return Material(self._layer("text"), -1.0, self.colour(0.6, 0.9, 0.2), (0.02, 0.02, 0.03))

    def screen(self) -> Material:
        """Return a screen, lit or dark."""
        if self._rng.random() < 0.35:
            return Material(self._layer("plaster"), 1.0, (0.02, 0.02, 0.02), (0.01, 0.01, 0.01), 0.9)
        return Material(self._layer("screen"), -1.0, (1, 1, 1), (0, 0, 0), 0.3, 0.4)

    def keys(self) -> Material:
        """Return a keyboard's keys fitted to the face."""
        return Material(self._layer("keys"), -1.0, (0.25, 0.25, 0.25), (0.02, 0.02, 0.02))

    def outside(self, glow: float) -> Material:
        """Return the emissive view from a window."""
        return Material(self._layer("outside"), -1.0, (1, 1, 1), (0, 0, 0), 0.0, glow)

    def cardboard(self) -> Material:
        """Return cardboard."""
        tone = float(self._rng.uniform(0.25, 0.5))
        return self._mix("plaster", 0.6, (tone, tone * 0.68, tone * 0.42), 0.5, 0.0)

    def leaf(self) -> Material:
        """Return leaves in a random green."""
        rng = self._rng
        value = rng.uniform(0.04, 0.25)
        return self._mix("carpet", 0.2, (value * rng.uniform(0.3, 0.8), value, value * rng.uniform(0.1, 0.4)), 0.7, 0.2)

    def glowing(self, colour: Vector, glow: float) -> Material:
        """Return an emissive material of one colour."""
        return Material(self._layer("plaster"), 1.0, colour, colour, 0.0, glow)

    def floor(self) -> Material:
        """Return a floor with planks or tiles of realistic size."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.4:
            return self._mix(
                "planks", rng.uniform(0.9, 1.8), self._brown(), rng.uniform(0.7, 0.95), rng.uniform(0.1, 0.8)
            )
        if kind < 0.65:
            light, dark = self.colour(0.15, 0.8, 0.3), self.colour(0.02, 0.5, 0.2)
            return Material(self._layer("tiles"), rng.uniform(1.0, 1.8), light, dark, rng.uniform(0.1, 0.9))
        if kind < 0.85:
            return self._mix("carpet", rng.uniform(0.4, 1.0), self.colour(0.03, 0.5, 0.5), 0.8, 0.0)
        if kind < 0.92:
            return Material(
                self._layer("pattern"), rng.uniform(0.8, 1.6), self.colour(0.3, 0.8), self.colour(0.02, 0.3), 0.4
            )
        return self._mix(
            str(rng.choice(["stone", "photo"])), rng.uniform(0.8, 2.5), self.colour(0.2, 0.8, 0.2), 0.7, 0.2
        )

    def wall(self) -> Material:
        """Return a wall: paint, wallpaper, brick, tiles or panels."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.62:
            return self._mix("plaster", rng.uniform(0.8, 2.0), self.colour(0.3, 0.9, 0.35), 0.5, 0.0)
        if kind < 0.8:
            light = self.colour(0.3, 0.85, 0.5)
            shade = rng.uniform(0.3, 0.9)
            dark = (light[0] * shade, light[1] * shade, light[2] * shade)
            return Material(self._layer("pattern"), rng.uniform(0.4, 1.2), light, dark)
        if kind < 0.88:
            return Material(
                self._layer("brick"), rng.uniform(1.0, 1.5), self.colour(0.1, 0.7, 0.6), self.colour(0.2, 0.6, 0.1)
            )
        if kind < 0.95:
            return Material(
                self._layer("tiles"), rng.uniform(0.6, 1.4), self.colour(0.3, 0.9, 0.4), self.colour(0.1, 0.6, 0.1), 0.7
            )
        return self._mix(
            str(rng.choice(["stone", "photo", "wood"])), rng.uniform(0.8, 2.0), self.colour(0.2, 0.8, 0.3), 0.7, 0.1
        )


class SceneBuilder:
    """Collection of instances; positions are local to the frame opened by :meth:`at`."""

    def __init__(self, rng: np.random.Generator, groups: dict[str, tuple[int, ...]], *, bare: bool = False) -> None:
        self.rng = rng
        self.palette = Palette(rng, groups)
        self._bare = bare
        self._rows: dict[str, list[list[float]]] = {}
        self._origin = np.zeros(3)
        self._axes = np.eye(3)

    @contextmanager
    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Iterator[None]:
        """Open a local frame at a point of the current frame, rotated about z by ``yaw`` radians."""
        origin, axes = self._origin, self._axes
        self._origin, self._axes = origin + axes @ np.array([x, y, z]), axes @ turned(yaw)
        yield
        self._origin, self._axes = origin, axes

    @contextmanager
    def decoration(self) -> Iterator[None]:
        """Leave out what is added meanwhile if the scene is bare; the random numbers drawn are the same."""
        rows = {name: list(added) for name, added in self._rows.items()} if self._bare else self._rows
        yield
        self._rows = rows

    def strip(self) -> None:
        """Give every instance so far one colour, the mean of its two, so that it shows no texture."""
        for row in (row for rows in self._rows.values() for row in rows):
            row[_LIGHT] = row[_DARK] = [(one + other) / 2 for one, other in zip(row[_LIGHT], row[_DARK], strict=True)]

    def world(self, x: float, y: float, z: float) -> Vector:
        """Convert a point of the current frame to world coordinates in metres."""
        point = self._origin + self._axes @ np.array([x, y, z])
        return float(point[0]), float(point[1]), float(point[2])

    def add(
        self,
        mesh: str,
        centre: Vector,
        size: Vector,
        material: Material,
        rotation: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Add one instance by its centre and its size along its own axes, in metres."""
        axes = self._axes if rotation is None else self._axes @ rotation
        position = self._origin + self._axes @ np.array(centre)
        m = material
        row = [*axes.T.ravel(), *position, *size, *m.light, *m.dark, m.layer, m.period_m, m.gloss, m.glow]
        self._rows.setdefault(mesh, []).append(row)

    def instances(self) -> dict[str, FloatArray]:
        """Return the instances, float32 (n, 25), by mesh name."""
        return {name: np.array(rows, dtype=np.float32) for name, rows in self._rows.items()}


def turned(yaw: float) -> npt.NDArray[np.float64]:
    """Return the rotation by ``yaw`` radians about z."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def tilted(axis: int, angle: float) -> npt.NDArray[np.float64]:
    """Return the rotation by ``angle`` radians about x (0), y (1) or z (2)."""
    c, s = math.cos(angle), math.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix
