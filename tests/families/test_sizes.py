"""Sizes that the authors' processors give for a frame, against the processors themselves."""

from __future__ import annotations

import numpy as np
import pytest
from transformers.models.dpt.image_processing_pil_dpt import get_resize_output_image_size
from transformers.models.zoedepth.image_processing_pil_zoedepth import (
    get_resize_output_image_size as zoedepth_size,
)

from mvde.description import SizeRule, Sizing, keep_aspect_size
from mvde.errors import ResolutionError

FRAMES = [(480, 640), (1080, 1920), (720, 1280), (640, 480), (375, 1242), (100, 37), (518, 518), (1536, 2048)]

DEPTH_ANYTHING = Sizing(size=(518, 518), multiple=14, rule=SizeRule.KEEP_ASPECT)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("size", "multiple"), [((518, 518), 14), ((384, 384), 32), ((384, 512), 32)])
def test_keep_aspect_sizes_are_those_of_the_processors(
    frame: tuple[int, int], size: tuple[int, int], multiple: int
) -> None:
    image = np.zeros((3, *frame), np.uint8)
    dpt = get_resize_output_image_size(image, size, True, multiple)
    assert keep_aspect_size(frame, size, multiple) == (dpt.height, dpt.width)
    zoedepth = zoedepth_size(image, size, True, multiple)
    assert keep_aspect_size(frame, size, multiple) == tuple(map(int, zoedepth))


def test_a_frame_of_1080x1920_becomes_518x924() -> None:
    assert DEPTH_ANYTHING.for_frame((1080, 1920)) == (518, 924)
    assert DEPTH_ANYTHING.for_frame((480, 640)) == (518, 686)
    assert DEPTH_ANYTHING.is_authors((518, 924))
    assert not DEPTH_ANYTHING.is_authors((392, 392))


def test_frames_that_keep_their_size_are_rounded() -> None:
    assert Sizing(size=(480, 640), multiple=32, rule=SizeRule.FRAME).for_frame((375, 1242)) == (352, 1216)
    assert Sizing(size=(490, 644), multiple=14, rule=SizeRule.FRAME_PADDED).for_frame((480, 640)) == (490, 644)
    fixed = Sizing(size=(1536, 1536), multiple=16, rule=SizeRule.FIXED)
    assert fixed.for_frame((1080, 1920)) == (1536, 1536)
    with pytest.raises(ResolutionError, match="runs at 1536x1536 only"):
        fixed.check((768, 768))
