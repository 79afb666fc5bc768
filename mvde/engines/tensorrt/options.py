"""What a user may choose for a TensorRT engine; the defaults are right for a robot."""

from __future__ import annotations

from dataclasses import dataclass

from mvde.errors import UsageError

HARDWARE_LEVELS = ("none", "ampere-plus", "same-compute-capability")
MAX_OPTIMIZATION_LEVEL = 5


@dataclass(frozen=True)
class TensorRtOptions:
    """Build options; ``None`` leaves the choice to mvde, or to the library where mvde has no better one.

    ``optimization_level`` is 0 to 5 (the library's 3), ``workspace_mib`` bounds the scratch memory of a layer,
    ``num_aux_streams`` the streams besides the caller's. ``version_compatible`` plans load in later versions of the
    same major, ``hardware`` widens the GPUs that a plan runs on. ``compute_capabilities`` (``("8.9", "12.0")``) are
    those that TensorRT-RTX builds for. ``timing_cache`` keeps what was timed, per GPU, driver and version.
    """

    optimization_level: int | None = None
    workspace_mib: int | None = None
    num_aux_streams: int | None = None
    version_compatible: bool = False
    hardware: str = "none"
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: bool = True

    def __post_init__(self) -> None:
        if self.hardware not in HARDWARE_LEVELS:
            raise UsageError(f"hardware compatibility is {self.hardware!r}; expected {', '.join(HARDWARE_LEVELS)}")
        ranges = {
            "optimisation level": (self.optimization_level, 0, MAX_OPTIMIZATION_LEVEL),
            "workspace limit (MiB)": (self.workspace_mib, 1, None),
            "number of auxiliary streams": (self.num_aux_streams, 0, None),
        }
        for name, (value, least, most) in ranges.items():
            if value is not None and (value < least or (most is not None and value > most)):
                bound = f"{least} to {most}" if most is not None else f"at least {least}"
                raise UsageError(f"the {name} is {value}; expected {bound}")
        for text in self.compute_capabilities:
            major, dot, minor = text.partition(".")
            if not (dot and major.isdigit() and minor.isdigit()):
                raise UsageError(f"compute capability {text!r} is not understood; give a number such as 8.9")
