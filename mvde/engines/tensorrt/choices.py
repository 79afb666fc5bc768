"""What a user may choose for a TensorRT engine; the defaults are right for a robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mvde.engines.settings import Setting, check_names, one_of, whole_number, yes_or_no
from mvde.errors import UsageError

HARDWARE_LEVELS = ("none", "ampere-plus", "same-compute-capability")
MAX_OPTIMIZATION_LEVEL = 5

SETTINGS = (
    Setting("optimization_level", f"0, fast to build, to {MAX_OPTIMIZATION_LEVEL}, fast to run"),
    Setting("workspace_mib", "scratch memory of a layer at most, MiB"),
    Setting("aux_streams", "streams besides the caller's; 0 on Jetson by default"),
    Setting("version_compatible", "yes: a plan that later versions of the major load, too"),
    Setting("hardware", f"{', '.join(HARDWARE_LEVELS)}: GPUs that the plan runs on"),
    Setting("timing_cache", "no: forget what was timed on this GPU"),
    Setting("compute_capability", "tensorrt-rtx: of the GPUs to build for, such as 8.9,12.0"),
)


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

    @classmethod
    def parse(cls, backend: str, settings: Mapping[str, str]) -> TensorRtOptions:
        """Options from the texts of ``--set``, for the backend of that name.

        Raises :class:`UsageError` for a name that is none of :data:`SETTINGS` and a text that is no value of it.
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
    """The number of that name, or ``None`` where none was given."""
    return whole_number(name, settings[name], least, most) if name in settings else None


def _capabilities(text: str) -> tuple[str, ...]:
    """Compute capabilities from a list such as ``"8.9,12.0"``, without repetitions."""
    given = [part.strip() for part in text.split(",")] if text else []
    for part in given:
        major, dot, minor = part.partition(".")
        if not (dot and major.isdigit() and minor.isdigit()):
            raise UsageError(
                f"--set compute_capability={text}: {part!r} is not understood; give a number such as 8.9, or several: "
                "8.9,12.0"
            )
    return tuple(dict.fromkeys(given))
