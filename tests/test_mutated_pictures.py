"""3,000 damaged pictures, the same in every run: each is a picture or an error of one line that names its file."""

from __future__ import annotations

import io
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.errors import ImageError
from mvde.image import read_image

DATA = Path(__file__).parent / "data"
NUM_MUTATIONS = 3000
LONGEST_S = 10
"""For one picture, on a busy machine: a damaged header may claim a large one, up to the reader's bound."""


def _encoded(mode: str, kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def originals() -> dict[str, bytes]:
    """Small pictures of every format and of several kinds by the name of their file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "rgb.jpg": _encoded("RGB", "JPEG"),
        "turned.jpg": _encoded("RGB", "JPEG", exif=exif),
        "progressive.jpg": _encoded("RGB", "JPEG", progressive=True, optimize=True),
        "cmyk.jpg": _encoded("CMYK", "JPEG"),
        "rgb.png": _encoded("RGB", "PNG"),
        "palette.png": _encoded("P", "PNG"),
        "alpha.png": _encoded("RGBA", "PNG"),
        "rgb.bmp": _encoded("RGB", "BMP"),
        "palette.bmp": _encoded("P", "BMP"),
        "lossy.webp": _encoded("RGB", "WEBP"),
        "lossless.webp": _encoded("RGB", "WEBP", lossless=True),
        "raw.tif": _encoded("RGB", "TIFF"),
        "packed.tif": _encoded("RGB", "TIFF", compression="tiff_lzw"),
        "rgb.ppm": _encoded("RGB", "PPM"),
    }
    shipped = ("crash_0.jpg", "float_tag.jpg", "srat_m1_0.jpg", "avif_named_png.png")
    return {**made, **{name: (DATA / name).read_bytes() for name in shipped}}


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The content with one to eight damages: a byte set, a bit flipped, a part cut out, repeated or zeroed, an end cut.

    Half of them fall into the first 64 bytes, where headers are.
    """
    data = bytearray(content)
    for _ in range(random.integers(1, 9)):
        if len(data) < 2:
            break
        span = min(64, len(data)) if random.random() < 0.5 else len(data)
        at = int(random.integers(0, span))
        length = int(random.integers(1, 17))
        match random.integers(0, 6):
            case 0:
                data[at] = random.integers(0, 256)
            case 1:
                data[at] ^= 1 << int(random.integers(0, 8))
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                data[at : at + length] = bytes(len(data[at : at + length]))
            case 5:
                del data[int(random.integers(1, len(data))) :]
    return bytes(data)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the damaged pictures."""
    folder = tmp_path_factory.mktemp("damaged")
    sources = list(originals().items())
    for seed in range(NUM_MUTATIONS):
        name, content = sources[seed % len(sources)]
        (folder / f"{seed:04d}-{name}").write_bytes(mutated(content, np.random.default_rng(seed)))
    return folder


def test_a_damaged_picture_is_a_picture_or_one_line_that_names_it(damaged: Path) -> None:
    num_read = 0
    for path in sorted(damaged.iterdir()):
        started = time.monotonic()
        message, image = "", None
        try:
            image = read_image(path)
        except ImageError as error:
            message = str(error)
        if image is None:
            assert path.name in message, path
            assert "\n" not in message, path
        else:
            assert (image.ndim, image.shape[2], image.dtype) == (3, 3, np.uint8), path
            num_read += 1
        assert time.monotonic() - started < LONGEST_S, path
    assert NUM_MUTATIONS // 10 < num_read < NUM_MUTATIONS * 9 // 10


def test_a_run_over_damaged_pictures_gives_as_many_results_as_announced(
    damaged: Path,
    engine_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(engine_folder, tmp_path / "engines" / engine_folder.name)
    (tmp_path / "photos").mkdir()
    chosen = sorted(damaged.iterdir())[::11]  # no divisor of the number of originals: all of them
    for path in chosen:
        shutil.copy(path, tmp_path / "photos")
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    assert cli.execute(["run", "photos", "photos/pipe.png"]) == 1
    printed = capsys.readouterr()
    num_results = len(list((tmp_path / "depth").glob("*.depth.png")))
    skipped = [line for line in printed.err.splitlines() if line.startswith("skipped: ")]
    assert num_results + len(skipped) == len(chosen) + 1
    assert f"{num_results} frames in depth/" in printed.out
    assert sum("pipe.png" in line for line in skipped) == 1
    assert f"{len(skipped)} of {len(chosen) + 1} inputs could not be read" in printed.err.splitlines()[-1]
