"""Other objects in rooms: plants, lamps, cartons, racks, cones, people, and abstract shapes.

Placed like furniture: on z = 0, with the back at y = 0, centred in x.
"""

from __future__ import annotations

from mvde.datasets.synth import objects
from mvde.datasets.synth.builder import SceneBuilder, tilted
from mvde.datasets.synth.furniture import Piece, Plan, draw_legs
from mvde.datasets.synth.meshes import FREE_FORMS


def plant(b: SceneBuilder) -> Plan:
    """Plan a potted plant of 0.6 to 1.7 m."""
    height = b.rng.uniform(0.6, 1.7)

    def draw(b: SceneBuilder) -> None:
        with b.at(0, 0.25):
            objects.pot_plant(b, height)

    return Piece(0.5, 0.5, height), draw


def floor_lamp(b: SceneBuilder) -> Plan:
    """Plan a floor lamp of 1.3 to 1.8 m."""
    height = b.rng.uniform(1.3, 1.8)

    def draw(b: SceneBuilder) -> None:
        pole = b.palette.metal()
        b.add("cylinder", (0, 0.17, 0.015), (0.3, 0.3, 0.03), pole)
        b.add("cylinder", (0, 0.17, height / 2), (0.025, 0.025, height), pole)
        b.add("shade", (0, 0.17, height - 0.1), (0.38, 0.38, 0.26), b.palette.fabric())
        b.add("sphere", (0, 0.17, height - 0.12), (0.1, 0.1, 0.1), b.palette.glowing((1, 0.85, 0.6), 2.0))

    return Piece(0.36, 0.36, height), draw


def cartons(b: SceneBuilder) -> Plan:
    """Plan a stack of cardboard boxes."""
    width, depth = b.rng.uniform(0.3, 0.7, 2)
    count = int(b.rng.integers(1, 5))
    height = float(b.rng.uniform(0.2, 0.45))

    def draw(b: SceneBuilder) -> None:
        z = 0.0
        for _ in range(count):
            scale = b.rng.uniform(0.75, 1.0, 3)
            tall = height * scale[2]
            pose = tilted(2, b.rng.normal(0, 0.12))
            size = (width * scale[0], depth * scale[1], tall)
            b.add("box", (0, depth / 2, z + tall / 2), size, b.palette.cardboard(), pose)
            b.add(
                "box", (0, depth / 2, z + tall / 2), (0.05, size[1] + 0.002, tall + 0.002), b.palette.plain(0.3), pose
            )
            z += tall

    return Piece(float(width), float(depth), height * count), draw


def rack(b: SceneBuilder) -> Plan:
    """Plan a warehouse rack with cartons on its levels."""
    size = Piece(b.rng.uniform(1.2, 2.4), b.rng.uniform(0.45, 0.8), b.rng.uniform(1.8, 2.25))

    def draw(b: SceneBuilder) -> None:
        steel, levels = b.palette.plain(), int(b.rng.integers(3, 5))
        draw_legs(b, size.width, size.depth, size.height, 0.05, steel)
        pitch = size.height / levels
        for k in range(levels):
            z = 0.1 + pitch * k
            b.add("box", (0, size.depth / 2, z), (size.width, size.depth, 0.04), steel)
            x = -size.width / 2 + 0.1
            while x < size.width / 2 - 0.35:
                w, h = b.rng.uniform(0.2, 0.5), b.rng.uniform(0.15, pitch - 0.12)
                if b.rng.random() < 0.8:
                    material = b.palette.cardboard() if b.rng.random() < 0.6 else b.palette.plain()
                    b.add("box", (x + w / 2, size.depth / 2, z + 0.02 + h / 2), (w, size.depth * 0.8, h), material)
                x += w + 0.03

    return size, draw


def bin_or_cone(b: SceneBuilder) -> Plan:
    """Plan a bin, cone or similar simple shape."""
    height, width = b.rng.uniform(0.25, 0.7), b.rng.uniform(0.2, 0.4)
    mesh = str(b.rng.choice(["cone", "pot", "cylinder", "roundcan", "torus", "dome"]))

    def draw(b: SceneBuilder) -> None:
        b.add(mesh, (0, width / 2, height / 2), (width, width, height), b.palette.plain())

    return Piece(width, width, height), draw


def person(b: SceneBuilder) -> Plan:
    """Plan a standing mannequin of 1.5 to 1.9 m."""
    height = b.rng.uniform(1.5, 1.9)

    def draw(b: SceneBuilder) -> None:
        top, trousers, skin = b.palette.fabric(), b.palette.fabric(), b.palette.plain(0.5, 0.1)
        k = height / 1.75
        with b.at(0, 0.2):
            for x in (-0.1, 0.1):
                b.add("roundcan", (x * k, 0, 0.43 * k), (0.16 * k, 0.17 * k, 0.86 * k), trousers)
                b.add("cushion", (x * k, 0.06, 0.04), (0.1, 0.27, 0.09), b.palette.plain(0.2))
                swing = tilted(1, b.rng.uniform(-0.15, 0.15)) @ tilted(0, b.rng.uniform(-0.6, 0.6))
                b.add("roundcan", (x * 2.5 * k, 0, 1.14 * k), (0.1 * k, 0.11 * k, 0.62 * k), top, swing)
            b.add("rounded", (0, 0, 1.15 * k), (0.4 * k, 0.23 * k, 0.62 * k), top)
            b.add("cylinder", (0, 0, 1.48 * k), (0.11 * k, 0.11 * k, 0.12 * k), skin)
            b.add("sphere", (0, 0, 1.62 * k), (0.17 * k, 0.2 * k, 0.25 * k), skin)
            b.add("dome", (0, -0.015, 1.69 * k), (0.18 * k, 0.21 * k, 0.14 * k), b.palette.plain(0.4))

    return Piece(0.5, 0.4, height), draw


def abstract(b: SceneBuilder) -> Plan:
    """Plan a random mesh, for shapes beyond furniture."""
    width, height = b.rng.uniform(0.2, 0.9), b.rng.uniform(0.15, 1.4)
    meshes = (*FREE_FORMS, "box", "wedge", "cylinder", "cone", "sphere", "dome", "roundcan")

    def draw(b: SceneBuilder) -> None:
        mesh = meshes[int(b.rng.integers(len(meshes)))]
        skins = (b.palette.plain, b.palette.fabric, b.palette.wood, b.palette.picture, b.palette.wall)
        material = skins[int(b.rng.integers(len(skins)))]()
        pose = tilted(2, b.rng.uniform(0, 6)) @ tilted(0, b.rng.normal(0, 0.15))
        b.add(mesh, (0, width / 2, height / 2), (width, width * b.rng.uniform(0.5, 1), height), material, pose)

    return Piece(width, width, height), draw
