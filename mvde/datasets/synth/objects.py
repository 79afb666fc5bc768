"""Small objects on tables, shelves and floors, of realistic size in metres."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mvde.datasets.synth.builder import SceneBuilder, tilted, turned
from mvde.datasets.synth.meshes import FREE_FORMS

# A maker draws one object standing on z = 0 at the origin and returns the radius of its footprint in metres.
Maker = Callable[[SceneBuilder], float]


def mug(b: SceneBuilder) -> float:
    """Draw a mug with a handle."""
    width, height = b.rng.uniform(0.07, 0.1), b.rng.uniform(0.08, 0.12)
    material = b.palette.ceramic()
    b.add("mug", (0, 0, height / 2), (width, width, height), material)
    handle = tilted(0, math.pi / 2)
    b.add("torus", (width * 0.55, 0, height / 2), (height * 0.6, height * 0.6, 0.05), material, handle)
    return width


def bottle(b: SceneBuilder) -> float:
    """Draw a bottle, labelled or plain."""
    width, height = b.rng.uniform(0.06, 0.09), b.rng.uniform(0.2, 0.33)
    b.add("bottle", (0, 0, height / 2), (width, width, height), b.palette.plain())
    if b.rng.random() < 0.6:
        b.add("cylinder", (0, 0, height * 0.3), (width * 1.02, width * 1.02, height * 0.3), b.palette.picture())
    return width / 2


def can(b: SceneBuilder) -> float:
    """Draw a can."""
    width, height = b.rng.uniform(0.06, 0.1), b.rng.uniform(0.09, 0.16)
    b.add("cylinder", (0, 0, height / 2), (width, width, height), b.palette.picture())
    return width / 2


def bowl(b: SceneBuilder) -> float:
    """Draw a bowl, empty or with fruit."""
    width, height = b.rng.uniform(0.12, 0.26), b.rng.uniform(0.05, 0.1)
    b.add("bowl", (0, 0, height / 2), (width, width, height), b.palette.ceramic())
    for _ in range(int(b.rng.integers(0, 5))):
        x, y = b.rng.uniform(-0.2, 0.2, 2) * width
        fruit = b.rng.uniform(0.05, 0.08)
        b.add("sphere", (x, y, height * 0.6), (fruit, fruit, fruit), b.palette.plain())
    return width / 2


def plate(b: SceneBuilder) -> float:
    """Draw a plate."""
    width, height = b.rng.uniform(0.17, 0.28), b.rng.uniform(0.015, 0.03)
    b.add("plate", (0, 0, height / 2), (width, width, height), b.palette.ceramic())
    return width / 2


def fruit(b: SceneBuilder) -> float:
    """Draw a single fruit."""
    size = b.rng.uniform(0.05, 0.1)
    height = size * b.rng.uniform(0.8, 1.1)
    b.add("sphere", (0, 0, height / 2), (size, size, height), b.palette.plain())
    return size / 2


def carton(b: SceneBuilder) -> float:
    """Draw a carton, standing or lying."""
    width, depth, height = b.rng.uniform(0.06, 0.2), b.rng.uniform(0.05, 0.1), b.rng.uniform(0.12, 0.3)
    if b.rng.random() < 0.3:
        depth, height = height, depth
    material = b.palette.picture() if b.rng.random() < 0.7 else b.palette.cardboard()
    b.add("box", (0, 0, height / 2), (width, depth, height), material)
    return max(width, depth) * 0.6


def cube(b: SceneBuilder) -> float:
    """Draw one to three stacked cubes."""
    size = b.rng.uniform(0.03, 0.07)
    for level in range(int(b.rng.integers(1, 4))):
        b.add("box", (0, 0, size * (level + 0.5)), (size, size, size), b.palette.plain(), turned(b.rng.uniform(0, 1)))
    return size * 0.7


def books(b: SceneBuilder) -> float:
    """Draw a stack of one to four books."""
    z = 0.0
    for _ in range(int(b.rng.integers(1, 5))):
        thick = b.rng.uniform(0.012, 0.045)
        size = (b.rng.uniform(0.12, 0.2), b.rng.uniform(0.18, 0.28), thick)
        b.add("box", (0, 0, z + thick / 2), size, b.palette.picture(), turned(b.rng.uniform(-0.3, 0.3)))
        z += thick
    return 0.16


def paper(b: SceneBuilder) -> float:
    """Draw an A4 sheet of text."""
    b.add("box", (0, 0, 0.001), (0.21, 0.297, 0.002), b.palette.text())
    return 0.18


def laptop(b: SceneBuilder) -> float:
    """Draw an open laptop."""
    body = b.palette.metal()
    width, depth = b.rng.uniform(0.29, 0.37), b.rng.uniform(0.2, 0.26)
    b.add("box", (0, 0, 0.009), (width, depth, 0.018), body)
    b.add("box", (0, -0.01, 0.0185), (width * 0.88, depth * 0.5, 0.001), b.palette.keys())
    lean = tilted(0, b.rng.uniform(-0.1, 0.5))
    hinge = np.array([0, -depth / 2, 0.018])
    up, front = lean @ np.array([0, 0, depth / 2]), lean @ np.array([0, 0.004, depth / 2])
    b.add("box", tuple(hinge + up), (width, 0.007, depth), body, lean)
    b.add("box", tuple(hinge + front), (width * 0.93, 0.002, depth * 0.88), b.palette.screen(), lean)
    return 0.2


def monitor(b: SceneBuilder) -> float:
    """Draw a monitor on its stand."""
    width = b.rng.uniform(0.45, 0.75)
    height, raised = width * 0.58, b.rng.uniform(0.08, 0.16)
    frame = b.palette.plain(0.1)
    b.add("box", (0, 0, 0.008), (0.24, 0.18, 0.016), frame)
    b.add("box", (0, -0.03, raised), (0.05, 0.03, raised * 2), frame)
    b.add("box", (0, 0, raised + height / 2), (width, 0.035, height), frame)
    b.add("box", (0, 0.018, raised + height / 2), (width * 0.96, 0.003, height * 0.94), b.palette.screen())
    return width / 2


def keyboard(b: SceneBuilder) -> float:
    """Draw a keyboard and a mouse."""
    b.add("box", (0, 0, 0.01), (0.44, 0.13, 0.02), b.palette.plain(0.1))
    b.add("box", (0, 0, 0.0205), (0.42, 0.115, 0.001), b.palette.keys())
    b.add("cushion", (0.3, 0, 0.015), (0.06, 0.1, 0.035), b.palette.plain(0.2))
    return 0.3


def desk_lamp(b: SceneBuilder) -> float:
    """Draw a desk lamp."""
    material, height = b.palette.plain(), b.rng.uniform(0.3, 0.55)
    b.add("cylinder", (0, 0, 0.01), (0.16, 0.16, 0.02), material)
    b.add("cylinder", (0, 0, height / 2), (0.02, 0.02, height), material)
    b.add("shade", (0, 0, height), (0.24, 0.24, 0.18), b.palette.fabric())
    b.add("sphere", (0, 0, height), (0.07, 0.07, 0.07), b.palette.glowing((1, 0.9, 0.7), 2.0))
    return 0.12


def vase(b: SceneBuilder) -> float:
    """Draw a vase, goblet or figure."""
    width, height = b.rng.uniform(0.1, 0.2), b.rng.uniform(0.15, 0.4)
    mesh = str(b.rng.choice(["vase", "goblet", "chess"]))
    b.add(mesh, (0, 0, height / 2), (width, width, height), b.palette.ceramic())
    return width / 2


def free_form(b: SceneBuilder) -> float:
    """Draw a random free-form mesh."""
    size = b.rng.uniform(0.05, 0.2, 3) * b.rng.uniform(0.5, 1.2)
    mesh = FREE_FORMS[int(b.rng.integers(len(FREE_FORMS)))]
    material = b.palette.plain() if b.rng.random() < 0.5 else b.palette.fabric()
    b.add(mesh, (0, 0, size[2] * 0.48), tuple(size), material)
    return float(max(size[:2]) / 2)


def tool(b: SceneBuilder) -> float:
    """Draw a lying rod: a pen, a screwdriver, a rolling pin."""
    length, thick = b.rng.uniform(0.12, 0.35), b.rng.uniform(0.008, 0.04)
    lying = turned(b.rng.uniform(0, 3)) @ tilted(1, math.pi / 2)
    b.add("cylinder", (0, 0, thick / 2), (thick, thick, length), b.palette.plain(), lying)
    grip = lying @ np.array([0, 0, length * 0.3]) + np.array([0, 0, thick / 2])
    b.add("roundcan", tuple(grip), (thick * 1.5, thick * 1.5, length * 0.4), b.palette.plain(), lying)
    return length / 2


def pot_plant(b: SceneBuilder, height: float | None = None) -> float:
    """Draw a potted plant, ``height`` metres tall (random by default)."""
    height = b.rng.uniform(0.2, 0.45) if height is None else height
    pot = height * b.rng.uniform(0.25, 0.4)
    width = pot * b.rng.uniform(0.9, 1.3)
    b.add("pot", (0, 0, pot / 2), (width, width, pot), b.palette.ceramic())
    leaf, slender = b.palette.leaf(), b.rng.uniform(0.15, 0.5)
    for _ in range(int(b.rng.integers(10, 26))):
        pitch, length = b.rng.uniform(0.2, 1.35), (height - pot) * b.rng.uniform(0.5, 1.0)
        pose = turned(b.rng.uniform(0, 2 * math.pi)) @ tilted(1, pitch)
        centre = np.array([0, 0, pot * 0.85]) + pose @ np.array([0, 0, length * 0.55])
        b.add("sphere", tuple(centre), (0.012, length * slender, length), leaf, pose)
    return max(width / 2, height * 0.3)


TABLETOP: tuple[Maker, ...] = (
    mug, bottle, can, bowl, plate, fruit, carton, carton, cube, cube, books, paper, laptop, desk_lamp, vase, free_form,
    free_form, tool, tool, pot_plant,
)  # fmt: skip


def clutter(b: SceneBuilder, width: float, depth: float, count: int, makers: tuple[Maker, ...] = TABLETOP) -> None:
    """Place up to ``count`` objects on a surface of the current frame (centred, z = 0) without overlap."""
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        x, y = b.rng.uniform(-0.5, 0.5) * width * 0.85, b.rng.uniform(-0.5, 0.5) * depth * 0.8
        if any(math.hypot(x - u, y - v) < radius + 0.1 for u, v, radius in taken):
            continue
        with b.at(x, y, 0.0, b.rng.normal(0.0, 0.5)):
            taken.append((x, y, makers[int(b.rng.integers(len(makers)))](b)))


def shelf_row(b: SceneBuilder, width: float, depth: float, height: float) -> None:
    """Fill one shelf board (centred, z = 0) with upright books and a few objects below ``height``."""
    x = -width / 2 + 0.02
    stop = width / 2 - 0.05
    while x < stop:
        if b.rng.random() < 0.12:
            x += b.rng.uniform(0.05, 0.3)
        elif b.rng.random() < 0.12:
            size = min(b.rng.uniform(0.08, 0.18), height * 0.8)
            mesh = FREE_FORMS[int(b.rng.integers(len(FREE_FORMS)))]
            b.add(mesh, (x + size / 2, 0, size / 2), (size, size, size), b.palette.ceramic())
            x += size
        else:
            thick, tall = b.rng.uniform(0.015, 0.05), height * b.rng.uniform(0.55, 0.9)
            deep = min(depth * 0.8, b.rng.uniform(0.12, 0.22))
            b.add("box", (x + thick / 2, depth * 0.05, tall / 2), (thick, deep, tall), b.palette.plain())
            x += thick
