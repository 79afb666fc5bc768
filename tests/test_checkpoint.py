"""Tensor files: deterministic bytes, and every flipped bit is detected."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file  # noqa: E402

from mvde.checkpoint import read_tensors, write_tensors  # noqa: E402
from mvde.errors import CheckpointError  # noqa: E402

METADATA = {"format": "pt", "mvde": '{"sha256":"' + "0" * 64 + '"}'}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(3, 5, generator=generator)
    made = {
        str(dtype).removeprefix("torch."): plain.mul(9).to(dtype)
        for dtype in (
            torch.float64,
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.int32,
            torch.int16,
        )
    }
    made |= {"bytes": torch.arange(7, dtype=torch.uint8), "flags": torch.tensor([True, False, True])}
    return {**made, "number": torch.tensor(2.5), "none": torch.zeros(0, 4), "turned": plain.T}


def test_every_type_and_shape_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors(), METADATA)
    metadata, found = read_tensors(path)
    theirs = load_file(path)  # safetensors' own reader
    assert {key: metadata[key] for key in METADATA} == METADATA
    assert found.keys() == theirs.keys() == tensors().keys()
    for name, tensor in tensors().items():
        for other in (found[name], theirs[name]):
            assert other.dtype == tensor.dtype
            assert torch.equal(other, tensor)


def test_equal_tensors_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import torch
from mvde.checkpoint import write_tensors
names = sys.argv[2].split(",")
write_tensors(Path(sys.argv[1]), {name: torch.arange(4.0) for name in names}, {n: "x" for n in reversed(names)})
"""
    for number, names in enumerate(("a,b,c,d", "d,c,b,a")):
        command = [sys.executable, "-c", script, str(tmp_path / f"{number}"), names]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": str(number), "PYTHONPATH": ":".join(sys.path)})
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_the_checksum_is_that_of_the_file_with_its_own_digits_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors(), METADATA)
    stated = read_tensors(path)[0]["sha256"].encode()
    assert hashlib.sha256(path.read_bytes().replace(stated, b"0" * 64)).hexdigest().encode() == stated


def test_no_flipped_bit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors(), METADATA)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match=r"a\.safetensors"):
            read_tensors(path)


def test_a_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors(), METADATA)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match=r"has SHA-256 .*…, but states .*…: it was damaged.*copy it again"):
        read_tensors(path)
