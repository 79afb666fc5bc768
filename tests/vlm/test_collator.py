"""The collator: what it joins equals what one call of the processor gives, and trains in transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from mvde.errors import UsageError
from mvde.vlm import DepthConfig, add_depth
from mvde.vlm.collator import DepthCollator
from mvde.vlm.processor import DepthProcessor
from tests.vlm.tiny_llava import PATCH, SIDE, depth_map, image_processor_of, llava_model, llava_processor, picture

GRIDS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE], [SIDE, 3 * SIDE]]
SIZES = [(60, 200), (120, 130), (64, 64)]


def test_texts_of_different_lengths_are_padded_as_by_the_processor() -> None:
    processor = DepthProcessor(llava_processor())
    texts = ["<image> which is nearer ?", "<image> ?", "<image> a b ?"]
    images, depths = [picture(index) for index in range(3)], [depth_map(), None, depth_map()]
    expected = processor(images=images, text=texts, depth=depths, padding=True, return_tensors="pt")
    examples = [
        processor(images=image, text=text, depth=[depth], return_tensors="pt")
        for image, text, depth in zip(images, texts, depths, strict=True)
    ]
    batch = DepthCollator.of(processor)(examples)
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


CROP = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}


@pytest.mark.parametrize(
    ("name", "options", "patch_size"),
    [
        ("LlavaNextImageProcessor", {"image_grid_pinpoints": GRIDS, **CROP}, PATCH),
        ("LlavaOnevisionImageProcessor", {"image_grid_pinpoints": GRIDS, **SQUARE}, PATCH),
        ("Idefics3ImageProcessor", {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": SIDE}}, PATCH),
        ("GotOcr2ImageProcessor", {"crop_to_patches": True, **SQUARE}, PATCH),
        ("PixtralImageProcessor", {"size": {"longest_edge": 96}, "patch_size": PATCH}, PATCH),
        ("Qwen2VLImageProcessor", {"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16}}, None),
        ("Siglip2ImageProcessor", {"max_num_patches": 16}, None),
    ],
)
def test_ragged_pictures_join_to_what_one_call_gives(name: str, options: Any, patch_size: int | None) -> None:
    if name == "GotOcr2ImageProcessor" and not hasattr(transformers, f"{name}Pil"):
        pytest.skip("this version's resizes with bicubic kernels whatever is asked; refused")
    processor = DepthProcessor(image_processor_of(name, **options), patch_size=patch_size)
    images = [[picture(index, size)] for index, size in enumerate(SIZES)]
    depths = [depth_map(size) for size in SIZES]
    expected = processor(images=images, depth=depths, return_tensors="pt")
    tokens = torch.arange(3)[None]
    examples = [
        {"input_ids": tokens, **processor(images=[one], depth=[depth], return_tensors="pt")}
        for one, depth in zip(images, depths, strict=True)
    ]
    batch = DepthCollator(pad_token_id=0)(examples)
    assert set(batch) == {*expected, "input_ids"}
    for key in expected:
        assert torch.equal(batch[key], torch.as_tensor(expected[key])), key


def test_labels_and_the_side_of_the_padding() -> None:
    examples = [
        {"input_ids": torch.tensor([5, 6, 7]), "labels": torch.tensor([5, 6, 7]), "attention_mask": torch.ones(3)},
        {"input_ids": torch.tensor([8]), "labels": torch.tensor([8]), "attention_mask": torch.ones(1)},
    ]
    right = DepthCollator(pad_token_id=9)(examples)
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert right["labels"].tolist() == [[5, 6, 7], [8, -100, -100]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    left = DepthCollator(pad_token_id=9, padding_side="left")(examples)
    assert left["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]


def test_a_text_without_a_picture_joins_texts_with_pictures() -> None:
    processor = DepthProcessor(llava_processor())
    examples = [
        processor(text="which is nearer ?", return_tensors="pt"),
        processor(images=picture(1), text="<image> ?", depth=depth_map(), return_tensors="pt"),
    ]
    batch = DepthCollator.of(processor)(examples)
    assert batch["input_ids"].shape[0] == 2
    assert batch["pixel_values"].shape[0] == batch["depth_stats"].shape[0] == 1


def test_examples_that_do_not_fit_together_are_refused_by_number() -> None:
    processor = DepthProcessor(llava_processor())
    collator = DepthCollator.of(processor)
    whole = dict(processor(images=picture(1), text="<image> ?", depth=depth_map(), return_tensors="pt"))
    without = {name: value for name, value in whole.items() if name != "depth_stats"}
    with pytest.raises(UsageError, match="example 1 has pixel_values, but no depth_stats"):
        collator([whole, without])
    with pytest.raises(UsageError, match=r"have \[1, 3\] columns"):
        collator([whole, {**whole, "depth_stats": whole["depth_stats"][..., :1]}])
    with pytest.raises(UsageError, match="example 0 lacks labels"):
        collator([whole, {**whole, "labels": whole["input_ids"]}])
    with pytest.raises(UsageError, match=r"depth_stats of the examples are \(1, 16, 3\), \(1, 9, 3\)"):
        collator([whole, {**whole, "depth_stats": whole["depth_stats"][:, :9]}])
    with pytest.raises(UsageError, match="needs input_ids"):
        collator([{"pixel_values": torch.zeros(1)}])
    with pytest.raises(UsageError, match="got none"):
        collator([])
    with pytest.raises(UsageError, match="padding_side is 'up'"):
        DepthCollator(0, "up")
    tokenizer = llava_processor()
    tokenizer.tokenizer.pad_token = None
    with pytest.raises(UsageError, match="has no padding token"):
        DepthCollator.of(tokenizer)


def test_transformers_trainer_trains_the_embedder_and_saves_the_processor(tmp_path: Path) -> None:
    model = add_depth(llava_model(), DepthConfig(hidden=8)).train()
    processor = DepthProcessor.for_model(model, llava_processor())
    examples = []
    for index, text in enumerate(["<image> which is nearer ?", "<image> ?"] * 2):
        depth = depth_map() if index else None
        example = processor(images=picture(index), text=text, depth=[depth], return_tensors="pt")
        examples.append({**example, "labels": example["input_ids"]})
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="steps",
        save_steps=2,
        logging_strategy="no",
    )
    trainer = transformers.Trainer(
        model,
        settings,
        train_dataset=examples,  # type: ignore[arg-type]
        data_collator=DepthCollator.of(processor),
        processing_class=processor,
    )
    trainer.train()
    last = model.depth_embedder.layers[2].weight
    assert bool(last.abs().sum() > 0)
    saved = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= saved
    assert any("processor" in name for name in saved)
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])
