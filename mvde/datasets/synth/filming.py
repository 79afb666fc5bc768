"""How clips are filmed: frame rate, shutter and rooms, and a video camera whose exposure and white balance hunt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mvde.datasets.synth.builder import FloatArray
from mvde.datasets.synth.develop import soften, vignette

CAMERA_HZ = 30.0
"""Steps per second of paths and of the camera's exposure; a slower frame rate skips some."""

_FOLLOW = 0.15  # share of the way to the wanted exposure in one frame, as of automatic exposures that settle in 0.5 s
_HUNT, _HUNT_KEPT = 0.02, 0.9  # deviation of 0.046 in the logarithm of exposure
_STEP_SHARE, _STEP = 0.02, 0.15  # a step of exposure about every two seconds
_BALANCE, _BALANCE_KEPT = 0.004, 0.95


@dataclass(frozen=True)
class Filming:
    """What the clips of a folder have in common.

    ``num_frames`` of ``size`` (height, width) at ``fps``, in rooms with ``bare`` (textureless) surfaces or in furnished
    ones. ``rolling_shutter_ms`` is how much later the bottom edge is exposed than the top edge; depth and pose are
    those of the middle row's moment.
    """

    size: tuple[int, int]
    num_frames: int
    fps: float = CAMERA_HZ
    rolling_shutter_ms: float = 0.0
    bare: bool = False

    @property
    def stride(self) -> float:
        """Steps of the path from one frame to the next."""
        return CAMERA_HZ / self.fps

    @property
    def num_steps(self) -> int:
        """Steps of the path from the first frame to the last, both counted."""
        return math.ceil((self.num_frames - 1) * self.stride) + 1

    @property
    def readout(self) -> float:
        """Steps of the path from the exposure of the top edge to that of the bottom edge."""
        return self.rolling_shutter_ms / 1000 * CAMERA_HZ


class VideoCamera:
    """Camera whose exposure follows the scene with a lag and hunts, whose white balance drifts, with fresh noise."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._target = 0.26 * 2 ** rng.normal(0.05, 0.35)
        self._curve = rng.uniform(0.9, 1.1) / 2.2
        self._balance = rng.normal(0.0, 0.05, 3)
        self._falloff, self._softness = rng.uniform(0.0, 0.3), rng.uniform(0.35, 1.0)
        self._grain = rng.uniform(0.003, 0.012)
        self.shutter = rng.uniform(0.1, 0.6)
        """Share of a thirtieth of a second that a frame is exposed for."""
        self._exposure: float | None = None
        self._hunt, self._drift = 0.0, np.zeros(3)

    def meter_anew(self) -> None:
        """Forget the exposure, as another camera after a cut."""
        self._exposure = None

    def develop(self, linear: FloatArray, num_steps: int = 1) -> npt.NDArray[np.uint8]:
        """Convert the frame ``num_steps`` after the last, linear light float32 (H, W, 3), to sRGB uint8 (H, W, 3)."""
        for _ in range(num_steps):
            gains = np.exp(self._next_exposure(linear) + self._next_balance()).astype(np.float32)
        light = linear * gains * vignette(linear.shape[0], linear.shape[1], self._falloff)[..., None]
        light += np.float32(self._softness) * (soften(light) - light)
        light *= (1.0 + light * 0.12) / (1.0 + light * 0.85)  # the shoulder of still frames
        encoded = np.clip(light, 0.0, 1.0) ** np.float32(self._curve)
        encoded += np.float32(self._grain) * self._rng.standard_normal(encoded.shape, dtype=np.float32)
        return np.asarray(np.clip(encoded, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)

    def _next_exposure(self, linear: FloatArray) -> float:
        wanted = math.log(self._target) - float(np.log(linear.mean(axis=2) + 0.01).mean())
        before = wanted if self._exposure is None else self._exposure
        self._exposure = before + _FOLLOW * (wanted - before)
        self._hunt = _HUNT_KEPT * self._hunt + self._rng.normal(0.0, _HUNT)
        if self._rng.random() < _STEP_SHARE:
            self._hunt += self._rng.normal(0.0, _STEP)
        return self._exposure + self._hunt

    def _next_balance(self) -> npt.NDArray[np.float64]:
        self._drift = _BALANCE_KEPT * self._drift + self._rng.normal(0.0, _BALANCE, 3)
        return self._balance + self._drift
