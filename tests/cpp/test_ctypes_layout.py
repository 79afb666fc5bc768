"""The structures of ``mvde.native.abi`` and of the tests' sessions lie in memory as those of ``mvde.h``."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from mvde.native import abi
from tests.cpp import ctypes_session

INCLUDE = Path(__file__).parents[2] / "cpp" / "include"
STRUCTURES = {
    "mvde_map": abi.CMap,
    "mvde_postprocess_options": abi.CPostprocessOptions,
    "mvde_stats_request": abi.CStatsRequest,
    "mvde_tag": abi.CTag,
    "mvde_frame": abi.CFrame,
    "mvde_resizer_options": abi.CResizerOptions,
    "mvde_camera": abi.CCamera,
    "mvde_distortion": abi.CDistortion,
    "mvde_points_options": abi.CPointsOptions,
    "mvde_box": abi.CBox,
    "mvde_scan_settings": abi.CScanSettings,
    "mvde_scan_info": abi.CScanInfo,
    "mvde_stabilization": abi.CStabilization,
    "mvde_steady_frame": abi.CSteadyFrame,
    "mvde_mounting": abi.CMounting,
    "mvde_floor": abi.CFloor,
    "mvde_session_options": ctypes_session.Options,
    "mvde_outputs": ctypes_session.Outputs,
}


def test_every_field_has_the_offset_that_c_gives_it(tmp_path: Path) -> None:
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("no C compiler")
    expected, lines = [], []
    for name, structure in STRUCTURES.items():
        expected.append(ctypes.sizeof(structure))
        lines.append(f"sizeof({name})")
        for field, *_ in structure._fields_:
            expected.append(getattr(structure, field).offset)
            lines.append(f"offsetof({name}, {field})")
    prints = "\n".join(f'    printf("%zu\\n", {line});' for line in lines)
    source = f"#include <mvde/mvde.h>\n#include <stdio.h>\nint main(void) {{\n{prints}\n    return 0;\n}}\n"
    (tmp_path / "layout.c").write_text(source)
    subprocess.run([compiler, f"-I{INCLUDE}", "layout.c", "-o", "layout"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "layout"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert [int(line) for line in printed.split()] == expected


def test_every_structure_is_compared() -> None:
    values = [*vars(abi).values(), *vars(ctypes_session).values()]
    declared = {value for value in values if isinstance(value, type) and issubclass(value, ctypes.Structure)}
    assert declared == set(STRUCTURES.values())
