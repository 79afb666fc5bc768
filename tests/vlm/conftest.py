"""Small random vision-language models of transformers, one for each way in which depth can enter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
T = pytest.importorskip("transformers")

IMAGE = 119
"""The id that stands for an image token in every model here."""

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LANGUAGE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 120,
    "max_position_embeddings": 512,
}
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 1e4}}
GRIDS = {"image_grid_pinpoints": [[64, 128], [128, 64], [128, 128]]}


@dataclass(frozen=True)
class SetUp:
    """A model, the pictures that it is asked about, and the language token that each patch belongs to.

    ``owner`` is int (..., N), shaped as the rows of ``depth_stats``, and -1 for patches that the model drops.
    """

    model: Any
    inputs: dict[str, Any]
    owner: np.ndarray

    def stats(self, num_columns: int = 3) -> Any:
        """Statistics (..., N, S) between 0.3 and 3.3, the same every time."""
        generator = torch.Generator().manual_seed(1)
        return torch.rand(*self.owner.shape, num_columns, generator=generator) * 3 + 0.3

    @property
    def num_tokens(self) -> int:
        """Number of image tokens in the prompt."""
        return len(_features(self))


def _features(set_up: SetUp) -> Any:
    """Image tokens (T, D) that the language model gets."""
    with torch.no_grad():
        found = set_up.model.model.get_image_features(**{k: v.clone() for k, v in set_up.inputs.items()})
    found = getattr(found, "pooler_output", found)
    parts = found if isinstance(found, list | tuple) else [found]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def _siglip(size: int = 64, patch: int = 16, **more: Any) -> Any:
    return T.SiglipVisionConfig(**TOWER, image_size=size, patch_size=patch, vision_use_head=False, **more)


def _clip() -> Any:
    return T.CLIPVisionConfig(**TOWER, image_size=64, patch_size=16)


def _pictures(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def _grid(pictures: int, side: int, merged: int = 1) -> np.ndarray:
    """Owners (pictures, side * side) where ``merged`` x ``merged`` neighbours share a token, in row-major order."""
    rows, columns = np.mgrid[0:side, 0:side] // merged
    token = (rows * (side // merged) + columns).reshape(-1)
    return np.stack([token + picture * (side // merged) ** 2 for picture in range(pictures)])


def _any_resolution(kept: range, newline: bool = True) -> np.ndarray:
    """Owners (1, 5, 16): the whole picture, then 2x2 tiles of 4x4 whose columns ``kept`` are left after unpadding."""
    owner = np.full((5, 4, 4), -1)
    owner[0] = np.arange(16).reshape(4, 4)
    for tile in range(4):
        for row in range(4):
            for column in range(4):
                y, x = tile // 2 * 4 + row, tile % 2 * 4 + column
                if x in kept:
                    owner[1 + tile, row, column] = 16 + y * (len(kept) + newline) + x - kept.start
    return owner.reshape(1, 5, 16)


def _blocks(rows: int, columns: int) -> np.ndarray:
    """Owners (rows * columns,) in the order of Qwen's processors: the four patches of a token follow each other."""
    return np.arange(rows * columns) // 4


def _llava(vision: Any, select: str = "full", layer: Any = -1) -> Any:
    config = T.LlavaConfig(
        vision_config=vision,
        text_config=T.LlamaConfig(**LANGUAGE),
        image_token_id=IMAGE,
        vision_feature_select_strategy=select,
        vision_feature_layer=layer,
    )
    return T.LlavaForConditionalGeneration(config)


def llava() -> SetUp:
    return SetUp(_llava(_siglip()), {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4))


def llava_384_14() -> SetUp:
    # 384 is no multiple of 14: the tower sees 27 x 14 = 378 pixels.
    return SetUp(_llava(_siglip(384, 14), layer=-2), {"pixel_values": _pictures(1, 3, 384, 384)}, _grid(1, 27))


def llava_clip() -> SetUp:
    return SetUp(_llava(_clip(), "default", -2), {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4))


def llava_clip_with_class_token() -> SetUp:
    owner = _grid(2, 4) + np.array([[1], [2]])  # each picture's class token is a language token too
    return SetUp(_llava(_clip(), "full", -2), {"pixel_values": _pictures(2, 3, 64, 64)}, owner)


def llava_two_layers() -> SetUp:
    return SetUp(_llava(_siglip(), layer=[-2, -1]), {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4))


def vipllava() -> SetUp:
    config = T.VipLlavaConfig(
        vision_config=_clip(),
        text_config=T.LlamaConfig(**LANGUAGE),
        image_token_index=IMAGE,
        vision_feature_layers=[-2, -1],
    )
    model = T.VipLlavaForConditionalGeneration(config)
    return SetUp(model, {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4))


def llava_next() -> SetUp:
    config = T.LlavaNextConfig(
        vision_config=_siglip(),
        text_config=T.LlamaConfig(**LANGUAGE),
        image_token_id=IMAGE,
        vision_feature_select_strategy="full",
        vision_feature_layer=-2,
        **GRIDS,
    )
    inputs = {"pixel_values": _pictures(1, 5, 3, 64, 64), "image_sizes": torch.tensor([[128, 100]])}
    # 100 of 128 columns are picture: 6 of 8 columns of patches, of which the first and the last are padding.
    return SetUp(T.LlavaNextForConditionalGeneration(config), inputs, _any_resolution(range(1, 7)))


def llava_next_ragged() -> SetUp:
    """Two pictures with 5 and 3 tiles; the second one's last two are padding."""
    model = llava_next().model
    pixels = _pictures(2, 5, 3, 64, 64)
    pixels[1, 3:] = 0
    sizes = torch.tensor([[128, 128], [64, 128]])
    first = _any_resolution(range(8))[0]
    second = np.full((5, 16), -1)
    start = 16 + 8 * 9
    second[0] = start + np.arange(16)
    for tile in range(2):
        for row in range(4):
            second[1 + tile, row * 4 : row * 4 + 4] = start + 16 + row * 9 + tile * 4 + np.arange(4)
    return SetUp(model, {"pixel_values": pixels, "image_sizes": sizes}, np.stack([first, second]))


def llava_onevision() -> SetUp:
    config = T.LlavaOnevisionConfig(
        vision_config=_siglip(),
        text_config=T.Qwen2Config(**LANGUAGE),
        image_token_id=IMAGE,
        video_token_id=118,
        vision_feature_layer=-1,
        **GRIDS,
    )
    inputs = {"pixel_values": _pictures(1, 5, 3, 64, 64), "image_sizes": torch.tensor([[128, 100]])}
    return SetUp(T.LlavaOnevisionForConditionalGeneration(config), inputs, _any_resolution(range(1, 7)))


def paligemma() -> SetUp:
    config = T.PaliGemmaConfig(
        vision_config=_siglip(projection_dim=48),
        text_config=T.GemmaConfig(**LANGUAGE, head_dim=24),
        projection_dim=48,
        image_token_index=IMAGE,
    )
    model = T.PaliGemmaForConditionalGeneration(config)
    return SetUp(model, {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4))


def gemma3() -> SetUp:
    config = T.Gemma3Config(
        vision_config=_siglip(),
        text_config=T.Gemma3TextConfig(**LANGUAGE, head_dim=24),
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        boi_token_index=117,
        eoi_token_index=118,
    )
    model = T.Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    return SetUp(model, {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4, merged=2))


def aya_vision() -> SetUp:
    config = T.AyaVisionConfig(
        vision_config=_siglip(),
        text_config=T.LlamaConfig(**LANGUAGE),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        downsample_factor=2,
        vision_feature_select_strategy="full",
    )
    model = T.AyaVisionForConditionalGeneration(config)
    return SetUp(model, {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4, merged=2))


def cohere2_vision() -> SetUp:
    config = T.Cohere2VisionConfig(
        vision_config=_siglip(), text_config=T.LlamaConfig(**LANGUAGE), image_token_id=IMAGE, downsample_factor=2
    )
    model = T.Cohere2VisionForConditionalGeneration(config)
    return SetUp(model, {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4, merged=2))


def _idefics3(kind: str) -> Any:
    vision = {**TOWER, "image_size": 64, "patch_size": 16}
    config = getattr(T, f"{kind}Config")(
        vision_config=vision, text_config=T.LlamaConfig(**LANGUAGE), image_token_id=IMAGE, scale_factor=2
    )
    return getattr(T, f"{kind}ForConditionalGeneration")(config)


def idefics3() -> SetUp:
    """Two rows of up to three tiles; the second row's last one is padding."""
    pixels = _pictures(2, 3, 3, 64, 64)
    pixels[1, 2] = 0
    owner = _grid(6, 4, merged=2).reshape(2, 3, 16)
    owner[1, 2] = -1
    return SetUp(_idefics3("Idefics3"), {"pixel_values": pixels}, owner)


def smolvlm() -> SetUp:
    owner = _grid(3, 4, merged=2).reshape(1, 3, 16)
    return SetUp(_idefics3("SmolVLM"), {"pixel_values": _pictures(1, 3, 3, 64, 64)}, owner)


def internvl() -> SetUp:
    vision = {**TOWER, "image_size": [64, 64], "patch_size": [16, 16]}
    config = T.InternVLConfig(
        vision_config=vision, text_config=T.Qwen2Config(**LANGUAGE), image_token_id=IMAGE, downsample_ratio=0.5
    )
    model = T.InternVLForConditionalGeneration(config)
    return SetUp(model, {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4, merged=2))


def deepseek_vl() -> SetUp:
    config = T.DeepseekVLConfig(vision_config=_siglip(), text_config=T.LlamaConfig(**LANGUAGE), image_token_id=IMAGE)
    model = T.DeepseekVLForConditionalGeneration(config)
    return SetUp(model, {"pixel_values": _pictures(2, 3, 64, 64)}, _grid(2, 4))


def lfm2_vl() -> SetUp:
    """Two pictures of 4x6 and 2x4 patches, the second padded to 24."""
    text = {key: value for key, value in LANGUAGE.items() if key != "max_position_embeddings"}
    config = T.Lfm2VlConfig(
        vision_config=T.Siglip2VisionConfig(**TOWER, patch_size=16, num_patches=64, vision_use_head=False),
        text_config=T.Lfm2Config(**text, layer_types=["conv", "full_attention"]),
        image_token_id=IMAGE,
        downsample_factor=2,
    )
    model = T.Lfm2VlForConditionalGeneration(config)
    mask = torch.ones(2, 24, dtype=torch.long)
    mask[1, 8:] = 0
    inputs = {
        "pixel_values": _pictures(2, 24, 3 * 16 * 16),
        "spatial_shapes": torch.tensor([[4, 6], [2, 4]]),
        "pixel_attention_mask": mask,
    }
    owner = np.full((2, 24), -1)
    rows, columns = np.mgrid[0:4, 0:6] // 2
    owner[0] = (rows * 3 + columns).reshape(-1)
    owner[1, :8] = 6 + np.tile(np.arange(4) // 2, 2)
    return SetUp(model, inputs, owner)


def _qwen(kind: str, vision: dict[str, Any], patch: int, text: dict[str, Any]) -> SetUp:
    config = getattr(T, f"{kind}Config")(
        vision_config=vision,
        text_config=LANGUAGE | MROPE | {"pad_token_id": 0} | text,
        image_token_id=IMAGE,
        video_token_id=118,
        vision_start_token_id=7,
    )
    model = getattr(T, f"{kind}ForConditionalGeneration")(config)
    grid = torch.tensor([[1, 8, 12], [1, 4, 6]])
    inputs = {"pixel_values": _pictures(8 * 12 + 4 * 6, 3 * 2 * patch * patch), "image_grid_thw": grid}
    return SetUp(model, inputs, np.concatenate([_blocks(8, 12), 24 + _blocks(4, 6)]))


def qwen2_vl() -> SetUp:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "patch_size": 14}
    return _qwen("Qwen2VL", vision, 14, {})


def qwen2_5_vl() -> SetUp:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "out_hidden_size": 48,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    return _qwen("Qwen2_5_VL", vision, 14, {})


QWEN3_TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 16,
    "out_hidden_size": 48,
    "deepstack_visual_indexes": [0],
    "num_position_embeddings": 64,
}


def qwen3_vl() -> SetUp:
    return _qwen("Qwen3VL", QWEN3_TOWER, 16, {"head_dim": 24})


def qwen3_vl_moe() -> SetUp:
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
    return _qwen("Qwen3VLMoe", QWEN3_TOWER, 16, {"head_dim": 24, **experts})


def qwen3_5() -> SetUp:
    if not hasattr(T, "Qwen3_5Config"):
        pytest.skip("this version of transformers has no Qwen3.5")
    vision = {key: value for key, value in QWEN3_TOWER.items() if key != "deepstack_visual_indexes"}
    linear = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    }
    return _qwen(
        "Qwen3_5", vision, 16, {"head_dim": 24, "layer_types": ["linear_attention", "full_attention"], **linear}
    )


def _glm(kind: str) -> SetUp:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "out_hidden_size": 48,
        "image_size": 112,
    }
    return _qwen(
        kind,
        vision,
        14,
        {"rope_parameters": MROPE["rope_parameters"] | {"partial_rotary_factor": 0.5, "mrope_section": [2, 2, 2]}},
    )


def glm4v() -> SetUp:
    return _glm("Glm4v")


def glm46v() -> SetUp:
    return _glm("Glm46V")


def llava_next_video() -> SetUp:
    config = T.LlavaNextVideoConfig(
        vision_config=_siglip(),
        text_config=T.LlamaConfig(**LANGUAGE),
        image_token_index=IMAGE,
        video_token_index=118,
        vision_feature_select_strategy="full",
        vision_feature_layer=-2,
        **GRIDS,
    )
    inputs = {"pixel_values": _pictures(1, 5, 3, 64, 64), "image_sizes": torch.tensor([[128, 100]])}
    return SetUp(T.LlavaNextVideoForConditionalGeneration(config), inputs, _any_resolution(range(1, 7)))


def _pixtral() -> Any:
    return T.PixtralVisionConfig(**TOWER, head_dim=16, image_size=96, patch_size=16)


RAGGED = [[64, 96], [32, 64]]


def llava_pixtral() -> SetUp:
    """Pictures of 4x6 and 2x4 patches; the second one is padded in ``pixel_values``."""
    inputs = {"pixel_values": _pictures(2, 3, 64, 96), "image_sizes": torch.tensor(RAGGED)}
    return SetUp(_llava(_pixtral()), inputs, np.arange(24 + 8))


def mistral3() -> SetUp:
    config = T.Mistral3Config(
        vision_config=_pixtral(),
        text_config=T.MistralConfig(**LANGUAGE),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        spatial_merge_size=2,
    )
    inputs = {"pixel_values": _pictures(2, 3, 64, 96), "image_sizes": torch.tensor(RAGGED)}
    rows, columns = np.mgrid[0:4, 0:6] // 2
    second_rows, second_columns = np.mgrid[0:2, 0:4] // 2
    owner = np.concatenate([(rows * 3 + columns).reshape(-1), 6 + (second_rows * 2 + second_columns).reshape(-1)])
    return SetUp(T.Mistral3ForConditionalGeneration(config), inputs, owner)


SET_UPS: dict[str, Callable[[], SetUp]] = {
    make.__name__: make
    for make in (
        llava,
        llava_384_14,
        llava_clip,
        llava_clip_with_class_token,
        llava_two_layers,
        vipllava,
        llava_next,
        llava_next_ragged,
        llava_onevision,
        paligemma,
        gemma3,
        aya_vision,
        cohere2_vision,
        idefics3,
        smolvlm,
        internvl,
        deepseek_vl,
        lfm2_vl,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        qwen3_vl_moe,
        qwen3_5,
        glm4v,
        glm46v,
        llava_next_video,
        llava_pixtral,
        mistral3,
    )
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread: a second one costs more than it saves at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FEW = ("llava", "llava_next_ragged", "gemma3", "idefics3", "internvl", "lfm2_vl", "qwen2_5_vl", "qwen3_vl", "mistral3")
"""Set-ups that between them have every order, padding and place; the others of a test can be slow."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every set-up: with ``any_set_up`` always, with ``few_set_ups`` on most of them only when slow."""
    if "any_set_up" in metafunc.fixturenames:
        metafunc.parametrize("any_set_up", SET_UPS, indirect=True)
    if "few_set_ups" in metafunc.fixturenames:
        names = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in SET_UPS]
        metafunc.parametrize("few_set_ups", names, indirect=True)


@pytest.fixture
def any_set_up(request: pytest.FixtureRequest) -> SetUp:
    return _made(request.param)


@pytest.fixture
def few_set_ups(request: pytest.FixtureRequest) -> SetUp:
    return _made(request.param)


@pytest.fixture
def set_up() -> Callable[[str], SetUp]:
    """Return the set-up of a name, the same weights every time."""
    return _made


@pytest.fixture
def set_ups() -> dict[str, Callable[[], SetUp]]:
    """Return what makes each set-up, by name."""
    return SET_UPS


@pytest.fixture
def features() -> Callable[[SetUp], Any]:
    """Return the image tokens (T, D) that a set-up's language model gets."""
    return _features


def _made(name: str) -> SetUp:
    torch.manual_seed(0)
    found = SET_UPS[name]()
    found.model.eval()
    return found
