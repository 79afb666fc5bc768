"""Resolutions: parsing user input and checking it against the patch grid."""

from __future__ import annotations

from mvde.errors import ResolutionError

MAX_SIDE = 16_384
"""Longest side in pixels, beyond any camera; keeps a typo from exhausting memory."""


def parse_resolution(text: str) -> tuple[int, int]:
    """Parse ``"896"`` (square) or ``"672x896"`` (height x width) to (height, width) in pixels.

    Raises :class:`ResolutionError` if the text is neither, or a side is not within 1 to ``MAX_SIDE``.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ResolutionError(f"resolution {text!r} is not understood; give one side (896) or HEIGHTxWIDTH (672x896)")
    if any(int(part) > MAX_SIDE for part in parts):
        raise ResolutionError(f"resolution {text!r} is too large; sides are at most {MAX_SIDE} pixels")
    return int(parts[0]), int(parts[-1])


def check_resolution(resolution: tuple[int, int], patch_size: int) -> None:
    """Raise :class:`ResolutionError` unless both sides are positive multiples of ``patch_size`` pixels.

    The error names the nearest valid resolutions.
    """
    if all(side > 0 and side % patch_size == 0 for side in resolution):
        return
    below = [max(side // patch_size, 1) * patch_size for side in resolution]
    above = [max(-(-side // patch_size), 1) * patch_size for side in resolution]
    nearest = " or ".join(dict.fromkeys(f"{h}x{w}" for h, w in (below, above)))
    raise ResolutionError(
        f"resolution {resolution[0]}x{resolution[1]} is not a multiple of the patch size {patch_size}; use {nearest}"
    )
