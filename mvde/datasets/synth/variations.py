"""What varied frames may show beyond those of ``mvde data synth``: cameras, scenes, people, sensors, textures."""

from __future__ import annotations

from dataclasses import dataclass

from mvde.errors import ConfigError


@dataclass(frozen=True)
class Variations:
    """Ranges to draw from; lengths in metres, angles in degrees.

    ``fov_deg`` is the field of view along the frame's longer side, ``aspects`` its width over its height.
    ``outdoor_share`` of the scenes are streets and yards of up to ``max_depth_m``, beyond which depth is unknown. Up to
    ``people`` people stand in each scene. ``balance`` is the deviation of each colour's gain (in logarithms), ``noise``
    the largest deviation of a middle grey's sensor noise (of 1), ``jpeg`` the range of qualities; ``jpeg_share`` of the
    frames are compressed.
    """

    fov_deg: tuple[float, float] = (40.0, 100.0)
    aspects: tuple[float, ...] = (9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9)
    outdoor_share: float = 0.3
    max_depth_m: float = 40.0
    people: int = 3
    balance: float = 0.12
    noise: float = 0.04
    jpeg: tuple[int, int] = (35, 95)
    jpeg_share: float = 0.6

    def __post_init__(self) -> None:
        low, high = self.fov_deg
        if not 0 < low <= high <= 120:
            raise ConfigError(f"fov_deg is {self.fov_deg}; expected 0 < low <= high <= 120 degrees")
        if not self.aspects or min(self.aspects) <= 0:
            raise ConfigError(f"aspects is {self.aspects}; expected widths over heights, such as (1.0, 1.33)")
        shares = {"outdoor_share": self.outdoor_share, "jpeg_share": self.jpeg_share}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is {share}; expected a share from 0 to 1")
        if not 0 < self.max_depth_m <= 65.0:  # uint16 millimetres
            raise ConfigError(f"max_depth_m is {self.max_depth_m}; expected up to 65 m")
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise ConfigError(f"jpeg is {self.jpeg}; expected qualities from 1 to 100, the lower first")
