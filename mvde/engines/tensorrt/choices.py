"""User options of TensorRT engines; the defaults suit a robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mvde.engines.settings import Setting, check_names, one_of, whole_number, yes_or_no
from mvde.errors import UsageError

HARDWARE_LEVELS = ("none", "ampere-plus", "same-compute-capability")
MAX_OPTIMIZATION_LEVEL = 5

SETTINGS = (
    Setting("optimization_level", f"0 (fast build) to {MAX_OPTIMIZATION_LEVEL} (fast inference)"),
    Setting("workspace_mib", "maximum scratch memory per layer, MiB"),
    Setting("aux_streams", "auxiliary CUDA streams; default on Jetson: 0"),
    Setting("version_compatible", "yes: plan also loads in later versions of the same major"),
    Setting("hardware", f"{', '.join(HARDWARE_LEVELS)}: GPUs that the plan runs on"),
    Setting("timing_cache", "no: do not reuse kernel timings of earlier builds"),
    Setting("compute_capability", "tensorrt-rtx: target GPUs, such as 8.9,12.0"),
)


@dataclass(frozen=True)
class TensorRtOptions:
    """Build options; ``None`` selects mvde's default, or else the library's.

    ``optimization_level`` is 0 to 5 (library default: 3), ``workspace_mib`` limits a layer's scratch memory in MiB,
    ``num_aux_streams`` the auxiliary CUDA streams. ``version_compatible`` plans load in later versions of the same
    major, ``hardware`` widens the set of GPUs. ``compute_capabilities`` (``("8.9", "12.0")``) are TensorRT-RTX's
    targets. ``timing_cache`` keeps kernel timings per GPU, driver and version.
    """

    optimization_level: int | None = None
    workspace_mib: int | None = None
    num_aux_streams: int | None = None
    version_compatible: bool = False
    hardware: str = "none"
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: bool = True

    @classmethod
    def parse(cls, backend: str, settings: Mapping[str, str]) -> TensorRtOptions:
        """Parse the ``--set`` values of a backend.

        Raises :class:`UsageError` for a name not in :data:`SETTINGS` or an invalid value.
        """
        check_names(backend, settings, SETTINGS)
        return cls(
            optimization_level=_number(settings, "optimization_level", 0, MAX_OPTIMIZATION_LEVEL),
            workspace_mib=_number(settings, "workspace_mib", 1),
            num_aux_streams=_number(settings, "aux_streams", 0),
            version_compatible=yes_or_no("version_compatible", settings.get("version_compatible", "no")),
            hardware=one_of("hardware", settings.get("hardware", "none"), HARDWARE_LEVELS),
            compute_capabilities=_capabilities(settings.get("compute_capability", "")),
            timing_cache=yes_or_no("timing_cache", settings.get("timing_cache", "yes")),
        )


def _number(settings: Mapping[str, str], name: str, least: int, most: int | None = None) -> int | None:
    """Parse an integer setting; ``None`` if not given."""
    return whole_number(name, settings[name], least, most) if name in settings else None


def _capabilities(text: str) -> tuple[str, ...]:
    """Parse a list of compute capabilities such as ``"8.9,12.0"``, dropping duplicates."""
    given = [part.strip() for part in text.split(",")] if text else []
    for part in given:
        major, dot, minor = part.partition(".")
        if not (dot and major.isdigit() and minor.isdigit()):
            raise UsageError(
                f"--set compute_capability={text}: {part!r} is not understood; give a number such as 8.9, or several: "
                "8.9,12.0"
            )
    return tuple(dict.fromkeys(given))
