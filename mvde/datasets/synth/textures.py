"""Procedural textures: one array of tileable 256 x 256 layers, generated with NumPy.

Most layers are masks with which the shader blends an instance's two colours, so that one layer serves any colouring.
Layers in the groups ``picture``, ``outside`` and ``screen`` hold colours (used with black and white as the two
colours). ``photo`` layers come from scikit-image's brick, grass and gravel photographs (CC0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt

SIDE = 256
_SEED = 7
Image = npt.NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class TextureSet:
    """Layers uint8 (L, 256, 256, 3), linear light, and the layer numbers of each group."""

    layers: npt.NDArray[np.uint8]
    groups: dict[str, tuple[int, ...]]


@cache
def build_textures() -> TextureSet:
    """Build all layers; they do not depend on the data set's seed."""
    layers: list[npt.NDArray[np.uint8]] = []
    groups: dict[str, list[int]] = {}
    for number, (group, make) in enumerate(_recipes()):
        image = np.clip(make(np.random.default_rng([_SEED, number])), 0.0, 1.0)
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        groups.setdefault(group, []).append(len(layers))
        layers.append(np.round(image * 255).astype(np.uint8))
    return TextureSet(np.stack(layers), {name: tuple(numbers) for name, numbers in groups.items()})


def _recipes() -> Iterator[tuple[str, Callable[[Rng], Image]]]:
    """Yield the group and maker of each layer in a fixed order."""
    yield from (("plaster", partial(mottled, base=0.85, power=power, contrast=0.09)) for power in (0.6, 1.0, 1.4, 1.8))
    yield from (("carpet", partial(mottled, base=0.55, power=power, contrast=0.22)) for power in (0.2, 0.5, 0.8))
    yield from (("planks", partial(planks, rows=rows)) for rows in (5, 8, 8, 12))
    yield from (("wood", partial(grain, stretch=stretch)) for stretch in (6, 10, 16, 24))
    yield from (("tiles", partial(tiles, cols=n, rows=n)) for n in (2, 4, 4, 8))
    yield from (("tiles", partial(tiles, cols=n, rows=2 * n, shift=0.5)) for n in (4, 6, 8))
    yield from [("brick", partial(tiles, cols=6, rows=14, shift=0.5, roughness=0.18))] * 2
    yield from (("pattern", partial(checker, count=count)) for count in (2, 4, 8))
    yield from (("pattern", partial(stripes, count=count)) for count in (4, 8, 14))
    yield from [("pattern", plaid)] * 2
    yield from (("pattern", partial(dots, count=count)) for count in (4, 8))
    yield from (("pattern", partial(damask, count=count)) for count in (2, 3, 4))
    yield from [("stone", marble)] * 3
    yield from [("stone", speckle)] * 2
    yield from (("stone", partial(concrete, power=power)) for power in (1.2, 1.6))
    yield from (("weave", partial(weave, count=count)) for count in (24, 48, 64))
    yield from [("picture", picture)] * 14
    yield from [("outside", outside)] * 5
    yield from [("screen", screen)] * 4
    yield from (("text", partial(text_page, lines=lines)) for lines in (14, 22))
    yield "keys", keys
    yield from (("photo", partial(photograph, name=name)) for name in ("brick", "grass", "gravel"))


def mottled(rng: Rng, base: float, power: float, contrast: float) -> Image:
    """Return low-contrast noise around ``base``."""
    return base + contrast * noise(rng, power)


def speckle(rng: Rng) -> Image:
    """Return fine, hard-edged speckles."""
    return as_image(0.5 + 0.3 * np.tanh(1.5 * noise(rng, 0.15)))


def concrete(rng: Rng, power: float) -> Image:
    """Return concrete: coarse and fine noise."""
    return 0.6 + 0.14 * noise(rng, power) + 0.04 * noise(rng, 0.2)


def keys(rng: Rng) -> Image:
    """Return a grid of keys."""
    return 1.0 - 0.85 * tiles(rng, 6, 5, 0.25, grout=0.12)


def as_image(values: npt.ArrayLike) -> Image:
    """Return the values as a float64 image."""
    return np.asarray(values, dtype=np.float64)


def noise(rng: Rng, power: float) -> Image:
    """Return tileable noise (256, 256) with zero mean, unit deviation and a 1/f**power amplitude spectrum."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None]) * SIDE
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.standard_normal((SIDE, SIDE))) / frequency**power
    spectrum[0, 0] = 0.0
    values = np.real(np.fft.ifft2(spectrum))
    return as_image(values / values.std())


def _axes() -> tuple[Image, Image]:
    y, x = np.meshgrid(np.arange(SIDE) / SIDE, np.arange(SIDE) / SIDE, indexing="ij")
    return y, x


def _stretched(rng: Rng, stretch: int, power: float) -> Image:
    """Return tileable noise stretched along x."""
    values = np.fft.ifft(
        np.fft.fft(noise(rng, power), axis=1) * np.exp(-((np.abs(np.fft.fftfreq(SIDE)) * SIDE * stretch / 60) ** 2))
    )
    real = np.real(values)
    return as_image(real / real.std())


def grain(rng: Rng, stretch: int) -> Image:
    """Return wood grain along x."""
    y, _ = _axes()
    rings = np.sin(2 * np.pi * (y * rng.integers(3, 7) + 0.35 * _stretched(rng, stretch, 1.4)))
    return 0.62 + 0.16 * rings + 0.08 * _stretched(rng, stretch, 0.4)


def planks(rng: Rng, rows: int) -> Image:
    """Return floor boards in ``rows`` rows with gaps."""
    y, x = _axes()
    row = np.floor(y * rows).astype(int)
    shift = rng.uniform(0, 1, rows)[row]
    column = np.floor((x + shift) * 2).astype(int) % 2
    shade = rng.uniform(0.55, 0.95, (rows, 2))[row, column]
    gap_y = np.abs((y * rows) % 1.0 - 0.5) > 0.5 - 0.03
    gap_x = np.abs(((x + shift) * 2) % 1.0 - 0.5) > 0.5 - 0.006
    return np.where(gap_y | gap_x, 0.25, shade + 0.07 * _stretched(rng, 14, 0.7))


def tiles(rng: Rng, cols: int, rows: int, shift: float = 0.0, *, grout: float = 0.03, roughness: float = 0.06) -> Image:
    """Return tiles (bright) with joints (dark), alternate rows shifted by ``shift`` tiles, as in a brick bond."""
    y, x = _axes()
    row = np.floor(y * rows).astype(int)
    across = x * cols + shift * (row % 2)
    column = np.floor(across).astype(int) % cols
    shade = 0.88 + roughness * rng.standard_normal((rows, cols))[row, column] + 0.5 * roughness * noise(rng, 0.8)
    width = grout * cols / max(cols, rows)
    joint = (np.abs(across % 1.0 - 0.5) > 0.5 - width) | (np.abs((y * rows) % 1.0 - 0.5) > 0.5 - grout)
    return np.where(joint, 0.05, shade)


def checker(rng: Rng, count: int) -> Image:
    """Return a chequerboard with ``count`` fields per side."""
    y, x = _axes()
    return ((np.floor(x * count) + np.floor(y * count)) % 2) * (0.9 + 0.06 * noise(rng, 1.0))


def stripes(rng: Rng, count: int) -> Image:
    """Return ``count`` vertical stripes."""
    _, x = _axes()
    wave = (x * count) % 1.0 < rng.uniform(0.25, 0.75)
    thin = (x * count * 2) % 1.0 < 0.12
    return 0.85 * wave + 0.1 - 0.3 * thin * wave + 0.03 * noise(rng, 0.3)


def plaid(rng: Rng) -> Image:
    """Return a plaid pattern."""
    y, x = _axes()
    count = int(rng.integers(2, 5))
    a, b = ((t * count) % 1.0 < 0.45 for t in (x, y))
    c, d = (np.abs((t * count) % 1.0 - 0.75) < 0.04 for t in (x, y))
    return as_image(0.15 + 0.35 * a + 0.35 * b + 0.15 * (c | d) + 0.03 * noise(rng, 0.2))


def dots(rng: Rng, count: int) -> Image:
    """Return ``count`` by ``count`` dots."""
    y, x = _axes()
    radius = np.hypot((x * count) % 1.0 - 0.5, (y * count) % 1.0 - 0.5)
    return np.clip((rng.uniform(0.2, 0.38) - radius) * 12, 0, 1)


def damask(rng: Rng, count: int) -> Image:
    """Return a mirrored ornament repeated ``count`` times (wallpaper)."""
    size = SIDE // count
    field = noise(rng, 1.3)[: size // 2 + 1, : size // 2 + 1]
    half = np.concatenate([field, field[:, ::-1]], axis=1)
    unit = np.concatenate([half, half[::-1]], axis=0)[:size, :size]
    ornament = np.tile(unit, (count + 1, count + 1))[:SIDE, :SIDE]
    return as_image(0.5 + 0.35 * np.tanh(3 * ornament))


def marble(rng: Rng) -> Image:
    """Return marble veins."""
    veins = np.abs(noise(rng, 1.5) + 0.2 * noise(rng, 1.0))
    return 0.3 + 0.65 * np.clip(veins * 1.6, 0, 1) ** 0.4


def weave(rng: Rng, count: int) -> Image:
    """Return a weave with ``count`` threads per side."""
    y, x = _axes()
    over = (np.floor(x * count) + np.floor(y * count)) % 2
    bump = np.where(over > 0, np.sin(np.pi * ((x * count) % 1.0)), np.sin(np.pi * ((y * count) % 1.0)))
    return 0.45 + 0.3 * bump + 0.08 * noise(rng, 0.6)


def _vivid(rng: Rng) -> Image:
    return rng.uniform(0.0, 1.0, 3) ** rng.uniform(1.0, 2.5)


def picture(rng: Rng) -> Image:
    """Return a random poster, painting or cover (256, 256, 3)."""
    y, x = _axes()
    image = _vivid(rng) + (y * rng.uniform(-0.7, 0.7))[..., None] * _vivid(rng)
    if rng.random() < 0.5:
        for _ in range(3):
            image = image + np.tanh(noise(rng, 1.6))[..., None] * rng.normal(0, 0.18, 3)
    for _ in range(int(rng.integers(2, 14))):
        cx, cy, w, h = rng.uniform(0, 1, 2).tolist() + rng.uniform(0.03, 0.35, 2).tolist()
        inside = np.abs(x - cx) < w if rng.random() < 0.3 else np.hypot((x - cx) / w, (y - cy) / h) < 1.0
        if rng.random() < 0.5:
            inside = (np.abs(x - cx) < w) & (np.abs(y - cy) < h)
        image = np.where(inside[..., None], _vivid(rng) * rng.uniform(0.6, 1.0), image)
    if rng.random() < 0.4:
        image = np.where(text_page(rng, int(rng.integers(4, 12)))[..., None] < 0.5, _vivid(rng), image)
    if rng.random() < 0.4:
        edge = np.maximum(np.abs(x - 0.5), np.abs(y - 0.5))[..., None] > 0.46
        image = np.where(edge, 0.85, image)
    return image


def outside(rng: Rng) -> Image:
    """Return a view from a window (256, 256, 3): sky, hills or houses, greenery."""
    y, x = _axes()  # y = 0 is the bottom of the pane
    sky = np.array([0.45, 0.62, 0.95]) * (0.5 + 0.5 * y[..., None]) + 0.35 * (1 - y[..., None])
    sky = sky + 0.18 * np.clip(noise(rng, 1.7), 0, 3)[..., None]
    profile = noise(rng, 1.3)[0] * 0.05 + rng.uniform(0.25, 0.5)
    green = np.array([0.10, 0.20, 0.05]) * (0.7 + 0.4 * np.clip(noise(rng, 0.8) + 1, 0, 3))[..., None]
    image = np.where((y < profile[None])[..., None], green, sky)
    for _ in range(int(rng.integers(0, 4))):
        left, width, top = rng.uniform(0, 1), rng.uniform(0.1, 0.3), rng.uniform(0.3, 0.8)
        house = (x > left) & (x < left + width) & (y < top)
        panes = ((x * 24) % 1 < 0.5) & ((y * 18) % 1 < 0.55)
        facade = rng.uniform(0.2, 0.7, 3)
        image = np.where(house[..., None], np.where(panes[..., None], 0.3 * facade, facade), image)
    return image


def screen(rng: Rng) -> Image:
    """Return a desktop with windows and text (256, 256, 3)."""
    y, x = _axes()
    image = np.tile(rng.uniform(0.05, 0.9, 3), (SIDE, SIDE, 1))
    for _ in range(int(rng.integers(2, 7))):
        left, low = rng.uniform(0, 0.7, 2)
        inside = (x > left) & (x < left + rng.uniform(0.1, 0.5)) & (y > low) & (y < low + rng.uniform(0.1, 0.5))
        image = np.where(inside[..., None], rng.uniform(0, 1, 3), image)
    lines = text_page(rng, 26)
    return np.where(((lines < 0.5) & (x > 0.1) & (x < 0.6))[..., None], 1.0 - image, image)


def text_page(rng: Rng, lines: int) -> Image:
    """Return dark words on white (256, 256)."""
    y, x = _axes()
    row = np.floor(y * lines).astype(int)
    words = rng.random((lines, 48)) < 0.78
    ink = words[row, np.floor(x * 48).astype(int)] & (np.abs((y * lines) % 1.0 - 0.5) < 0.28)
    ends = rng.uniform(0.5, 0.92, lines)[row]
    return np.where(ink & (x > 0.08) & (x < ends), 0.1, 0.95)


def photograph(_: Rng, name: str) -> Image:
    """Return one of scikit-image's CC0 texture photographs, downsampled and mirrored to be tileable."""
    from skimage import data

    full = np.asarray(getattr(data, name)(), dtype=np.float64)[:512, :512] / 255.0
    quarter = full.reshape(128, 4, 128, 4).mean(axis=(1, 3)) if name == "brick" else full[:128, :128]
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    return as_image(np.concatenate([half, half[::-1]], axis=0) ** 1.5)
