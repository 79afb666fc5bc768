"""Streets and yards of up to 60 m: ground, buildings, trees, vehicles, poles, people, and sky."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mvde.datasets.synth import props
from mvde.datasets.synth.builder import FloatArray, Material, SceneBuilder, Vector
from mvde.datasets.synth.scene import Lights, Rect, Scene
from mvde.datasets.synth.views import View, view_along

FAR_M = 150.0
"""Far plane: beyond the sky's panes."""

_SIDE_M, _SKY_M = 60.0, 70.0
_CLEAR_M = 1.0

Draw = Callable[[SceneBuilder], None]
Planned = tuple[float, float, Draw]
"""Width and depth of a thing's footprint in metres, and what draws it around the origin."""


def build_outdoor(rng: np.random.Generator, groups: dict[str, tuple[int, ...]]) -> Scene:
    """Build a lit scene of 60 x 60 m; ``groups`` names the texture layers (see ``textures.build_textures``)."""
    b = SceneBuilder(rng, groups)
    taken: list[Rect] = []
    _draw_ground(b)
    _draw_sky(b)
    for maker, low, high in (
        (_building, 3, 9), (_vehicle, 2, 9), (_tree, 3, 16), (_pole, 1, 8), (_wall, 0, 4), (_person, 2, 12),
        (_small, 2, 12),
    ):  # fmt: skip
        for _ in range(int(rng.integers(low, high + 1))):
            _place(b, maker, taken)
    return Scene(b.instances(), (_SIDE_M, _SIDE_M, 10.0), tuple(taken), (), _lights(rng))


def sample_outdoor_view(rng: np.random.Generator, scene: Scene) -> View:
    """Return a random view of a robot or a person outdoors; check it with :func:`is_good_outdoor_view`."""
    x, y = 0.0, 0.0
    for _ in range(30):
        x, y = rng.uniform(5.0, _SIDE_M - 5.0, 2)
        if not any(_inside(x, y, rect, 0.6) for rect in scene.obstacles):
            break
    tilt = math.radians(float(np.clip(rng.normal(-4.0, 8.0), -30.0, 15.0)))
    eye = np.array([x, y, rng.uniform(0.25, 1.9)])
    return view_along(eye, rng.uniform(0, 2 * math.pi), tilt, math.radians(rng.normal(0.0, 2.0)), math.radians(60.0))


def is_good_outdoor_view(depth_m: FloatArray, max_depth_m: float) -> bool:
    """Return whether a probe's depth (H, W) shows enough that is near enough, and not just a bare wall."""
    valid = (depth_m > 0.0) & (depth_m <= max_depth_m)
    if valid.mean() < 0.4:
        return False
    near, middle, high = np.quantile(depth_m[valid], [0.005, 0.5, 0.98])
    return bool(near > 0.3 and middle > 0.8 and high - near > 0.35 * middle)


def _inside(x: float, y: float, rect: Rect, margin: float) -> bool:
    return rect[0] - margin < x < rect[2] + margin and rect[1] - margin < y < rect[3] + margin


def _draw_ground(b: SceneBuilder) -> None:
    group = str(b.rng.choice(["photo", "stone", "carpet", "tiles"]))
    light, dark = b.palette.colour(0.15, 0.6, 0.35), b.palette.colour(0.02, 0.2, 0.3)
    middle = _SIDE_M / 2
    b.add("box", (middle, middle, -0.1), (4 * _SIDE_M, 4 * _SIDE_M, 0.2), _skin(b, group, 2.5, light, dark))
    if b.rng.random() < 0.7:
        grey = float(b.rng.uniform(0.05, 0.25))
        wide, across = b.rng.uniform(4.0, 9.0), b.rng.uniform(15.0, 45.0)
        asphalt = _skin(b, "plaster", 3.0, (grey, grey, grey), (grey / 2, grey / 2, grey / 2))
        b.add("box", (middle, across, 0.005), (4 * _SIDE_M, wide, 0.02), asphalt)
        for x in np.arange(0.0, _SIDE_M, 4.0):
            b.add("box", (x, across, 0.011), (1.8, 0.15, 0.02), b.palette.plain(0.1, 0.6))


def _skin(b: SceneBuilder, group: str, period_m: float, light: Vector, dark: Vector) -> Material:
    """Material of a random layer of a texture group."""
    layers = b.palette.layers(group)
    period = period_m * b.rng.uniform(0.7, 1.4)
    return Material(layers[int(b.rng.integers(len(layers)))], period, light, dark)


def _draw_sky(b: SceneBuilder) -> None:
    glow = float(b.rng.uniform(1.5, 3.5))
    middle, tall = _SIDE_M / 2, 60.0
    for k in range(4):
        yaw = k * math.pi / 2
        with b.at(middle + _SKY_M * math.cos(yaw), middle + _SKY_M * math.sin(yaw), 0.0, yaw):
            b.add("box", (0.0, 0.0, tall / 2 - 6.0), (0.5, 2 * _SKY_M + 1, tall), b.palette.outside(glow))
    blue = b.rng.uniform(0.35, 0.95)
    top = b.palette.glowing((0.9 * blue, 0.95 * blue + 0.05, 1.0), glow)
    b.add("box", (middle, middle, tall - 6.0), (2 * _SKY_M + 1, 2 * _SKY_M + 1, 0.5), top)


def _place(b: SceneBuilder, maker: Callable[[SceneBuilder], Planned], taken: list[Rect]) -> None:
    """Draw a thing where it overlaps nothing, if such a place is found."""
    rng = b.rng
    width, depth, draw = maker(b)
    for _ in range(8):
        yaw = float(rng.integers(4)) * math.pi / 2 + rng.normal(0.0, 0.15)
        x, y = rng.uniform(2.0, _SIDE_M - 2.0, 2)
        reach = (abs(math.cos(yaw)) * width + abs(math.sin(yaw)) * depth) / 2
        deep = (abs(math.sin(yaw)) * width + abs(math.cos(yaw)) * depth) / 2
        rect = (x - reach, y - deep, x + reach, y + deep)
        if any(_overlap(rect, other) for other in taken):
            continue
        taken.append(rect)
        with b.at(x, y, 0.0, yaw):
            draw(b)
        return


def _overlap(a: Rect, b: Rect) -> bool:
    return a[0] - _CLEAR_M < b[2] and b[0] - _CLEAR_M < a[2] and a[1] - _CLEAR_M < b[3] and b[1] - _CLEAR_M < a[3]


def _building(b: SceneBuilder) -> Planned:
    width, depth, height = b.rng.uniform(5.0, 14.0), b.rng.uniform(4.0, 10.0), b.rng.uniform(2.8, 12.0)

    def draw(b: SceneBuilder) -> None:
        group = str(b.rng.choice(["brick", "plaster", "photo", "stone"]))
        light = b.palette.colour(0.15, 0.8, 0.4)
        b.add("box", (0, 0, height / 2), (width, depth, height), _skin(b, group, 2.0, light, (0.1, 0.09, 0.08)))
        if b.rng.random() < 0.5:
            b.add("wedge", (0, 0, height + 0.8), (width * 1.05, depth * 1.05, 1.6), b.palette.plain(0.5))
        pane = b.palette.glowing((0.02, 0.03, 0.04), 0.0)  # dark glass
        across, levels = int(b.rng.integers(1, 6)), max(1, int(height / 2.8))
        for side in (-1, 1):
            for k in range(across):
                for level in range(levels):
                    x, z = (k + 0.5) * width / across - width / 2, 1.6 + level * 2.8
                    b.add("box", (x, side * depth / 2, z), (min(1.4, width / across / 2), 0.08, 1.3), pane)

    return width, depth, draw


def _vehicle(b: SceneBuilder) -> Planned:
    length, width, height = b.rng.uniform(3.5, 6.0), b.rng.uniform(1.6, 2.1), b.rng.uniform(1.3, 2.4)

    def draw(b: SceneBuilder) -> None:
        paint, dark = b.palette.ceramic(), b.palette.plain(0.1, 0.01)
        b.add("rounded", (0, 0, 0.3 + height * 0.25), (length, width, height * 0.55), paint)
        b.add("rounded", (-0.1 * length, 0, height * 0.72), (length * 0.55, width * 0.9, height * 0.5), dark)
        for x in (-0.32, 0.32):
            for y in (-0.5, 0.5):
                b.add("roundcan", (x * length, y * width, 0.32), (0.62, 0.2, 0.62), dark)

    return length, width, draw


def _tree(b: SceneBuilder) -> Planned:
    height, crown = b.rng.uniform(2.5, 9.0), b.rng.uniform(1.2, 4.0)

    def draw(b: SceneBuilder) -> None:
        thick = 0.04 * height
        b.add("cylinder", (0, 0, height * 0.3), (thick, thick, height * 0.6), b.palette.wood())
        leaf = b.palette.leaf()
        if b.rng.random() < 0.3:
            b.add("cone", (0, 0, height * 0.6), (crown, crown, height * 0.8), leaf)
            return
        for _ in range(int(b.rng.integers(2, 6))):
            x, y = b.rng.normal(0.0, crown * 0.2, 2)
            size = crown * b.rng.uniform(0.5, 0.9)
            b.add("sphere", (x, y, height * b.rng.uniform(0.55, 0.9)), (size, size, size * 0.8), leaf)

    return 0.6, 0.6, draw


def _pole(b: SceneBuilder) -> Planned:
    height = b.rng.uniform(2.0, 6.0)

    def draw(b: SceneBuilder) -> None:
        metal = b.palette.metal()
        b.add("cylinder", (0, 0, height / 2), (0.1, 0.1, height), metal)
        if b.rng.random() < 0.5:
            b.add("box", (0, 0.02, height - 0.4), (0.6, 0.04, 0.6), b.palette.picture())

    return 0.3, 0.3, draw


def _wall(b: SceneBuilder) -> Planned:
    length, height = b.rng.uniform(3.0, 12.0), b.rng.uniform(0.5, 2.2)

    def draw(b: SceneBuilder) -> None:
        b.add("box", (0, 0, height / 2), (length, 0.2, height), b.palette.wall())

    return length, 0.2, draw


def _person(b: SceneBuilder) -> Planned:
    piece, draw = props.person(b)
    return piece.width, piece.depth, draw


def _small(b: SceneBuilder) -> Planned:
    planner = (props.bin_or_cone, props.cartons, props.abstract)[int(b.rng.integers(3))]
    piece, draw = planner(b)
    return piece.width, piece.depth, draw


def _lights(rng: np.random.Generator) -> Lights:
    """Sun, or an overcast sky; the lamp and the fill lights of rooms are off."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.25, 1.3)
    sun = rng.uniform(2.0, 6.0) if rng.random() < 0.65 else 0.0
    warm = rng.uniform(0.7, 1.0)
    ambient, off, far = rng.uniform(0.6, 1.6), (0.0, 0.0, 0.0), (_SIDE_M / 2, _SIDE_M / 2, 9.0)
    return Lights(
        lamp_position=far,
        lamp_colour=off,
        sun_direction=(
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ),
        sun_colour=(sun, sun * (0.6 + 0.4 * warm), sun * warm),
        fill_position=(far, far),
        fill_colour=(off, off),
        ambient_up=(ambient * 0.9, ambient * 0.95, ambient),
        ambient_down=(ambient * 0.5, ambient * 0.48, ambient * 0.45),
        corner_darkening=0.0,
    )
