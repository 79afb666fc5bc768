"""A LLaVA with a SigLIP tower and its processor, small and random, and pictures with depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

SIDE, PATCH = 64, 16
WORDS = ("<pad>", "<unk>", "<image>", "which", "is", "nearer", "?", "a", "b")


def picture(seed: int, size: tuple[int, ...] = (48, 80)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def depth_map(size: tuple[int, int] = (48, 80)) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0.5, 4, size).astype(np.float32)


def image_processor_of(name: str, **options: Any) -> Any:
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return kind(**options)


def llava_processor() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", additional_special_tokens=["<image>"]
    )
    return transformers.LlavaProcessor(
        image_processor_of("SiglipImageProcessor", size={"height": SIDE, "width": SIDE}),
        fast,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        image_token="<image>",
        chat_template="{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}",
    )


def llava_model(num_layers: int = 1) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = transformers.SiglipVisionConfig(
        **{**sizes, "num_hidden_layers": num_layers}, image_size=SIDE, patch_size=PATCH, vision_use_head=False
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=transformers.LlamaConfig(**sizes, vocab_size=len(WORDS)),
        image_token_id=WORDS.index("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    return transformers.LlavaForConditionalGeneration(config).eval()
