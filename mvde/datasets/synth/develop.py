"""Camera processing from linear light to 8-bit sRGB: exposure, white balance, vignette, tone curve, blur, noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mvde.datasets.synth.builder import FloatArray


def develop(linear: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Convert linear light float32 (H, W, 3) to sRGB uint8 (H, W, 3); ``linear`` is overwritten."""
    exposure, curve = 0.26 * np.exp2(rng.normal(0.05, 0.45)), rng.uniform(0.85, 1.15)
    balance = np.exp(rng.normal(0.0, 0.06, 3)).astype(np.float32)
    falloff, softness, grain = (
        rng.uniform(0.0, 0.35),
        rng.uniform(0.35, 1.0),
        rng.uniform(0.0, 0.012) * (1 + 2 * (rng.random() < 0.15)),
    )
    mean = np.exp(np.log(linear.mean(axis=2) + 0.01).mean())
    linear *= balance * np.float32(exposure / mean)
    linear *= vignette(linear.shape[0], linear.shape[1], falloff)[..., None]
    linear += np.float32(softness) * (soften(linear) - linear)  # lens blur, which also hides aliasing at edges
    # Filmic shoulder (Hable-like rational curve): bright panes and lamps clip softly.
    linear *= (1.0 + linear * 0.12) / (1.0 + linear * 0.85)
    np.clip(linear, 0.0, 1.0, out=linear)
    encoded = linear ** np.float32(curve / 2.2)
    encoded += grain * rng.standard_normal(encoded.shape, dtype=np.float32)
    return np.asarray(np.clip(encoded, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def vignette(height: int, width: int, falloff: float) -> FloatArray:
    """Return the factor (H, W) by which a lens darkens, from 1 in the middle to 1 - ``falloff`` in the corners."""
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    darkening = np.float32(falloff) * np.clip((y**2)[:, None] + (x**2)[None], 0.0, 2.0) / 2
    return (np.float32(1.0) - darkening).astype(np.float32)


def soften(image: FloatArray) -> FloatArray:
    """Return the image after a 3-tap binomial filter along both axes (a slightly defocused lens)."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    result: FloatArray = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
    return result
