"""Saving, loading and copying models with depth; adapters of peft."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402

from mvde.errors import CheckpointError, UsageError  # noqa: E402
from mvde.vlm import (  # noqa: E402
    DepthConfig,
    add_depth,
    add_lora,
    depth_config,
    embedder_of,
    from_pretrained,
    has_depth,
    save_pretrained,
)

PROMPT = torch.tensor([[1, *[119] * 16, 5, 6]]).expand(2, -1)


def logits(model: Any, made: Any, depth: bool = True) -> Any:
    """Logits of a prompt with one picture in each row."""
    stats = {"depth_stats": made.stats()} if depth else {}
    with torch.no_grad():
        return model(input_ids=PROMPT, attention_mask=torch.ones_like(PROMPT), **made.inputs, **stats).logits


def trained(made: Any, config: DepthConfig | None = None) -> Any:
    """The model with an embedder that is no longer zero."""
    model = add_depth(made.model, config, moments=made.stats())
    torch.nn.init.normal_(model.depth_embedder.layers[2].weight, generator=torch.Generator().manual_seed(3))
    return model


@pytest.fixture
def llava(set_up: Callable[[str], Any]) -> Any:
    return set_up("llava")


@pytest.fixture
def base(llava: Any, tmp_path: Path) -> Path:
    """Folder of the plain model."""
    llava.model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapted(made: Any, base: Path) -> Any:
    """A model of peft's on the base in a folder, with adapters and embedder as if trained."""
    model = add_depth(transformers.LlavaForConditionalGeneration.from_pretrained(base).eval(), moments=made.stats())
    wrapped = add_lora(model, rank=2)
    generator = torch.Generator().manual_seed(4)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return wrapped.eval()


def test_a_saved_model_is_bit_equal_when_it_is_loaded(llava, tmp_path) -> None:
    config = DepthConfig(columns=("mean", "valid", "ray_x"), hidden=24, graph_sha256="ab" * 32, camera="none")
    model = trained(llava, config)
    expected = logits(model, llava)
    save_pretrained(model, tmp_path / "saved")
    loaded = from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(logits(loaded, llava), expected)
    assert depth_config(loaded) == depth_config(model)
    stored = depth_config(loaded)
    assert (stored.columns, stored.hidden, stored.graph_sha256) == (config.columns, 24, "ab" * 32)
    assert str(stored.camera) == "none"
    assert isinstance(loaded, transformers.LlavaForConditionalGeneration)


def test_plain_transformers_loads_a_saved_model_as_its_base(llava, tmp_path) -> None:
    without = logits(llava.model, llava, depth=False)
    model = trained(llava)
    model.save_pretrained(tmp_path / "saved")  # transformers' own
    stored = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert stored["architectures"] == ["LlavaForConditionalGeneration"]
    assert stored["mvde_depth"]["columns"] == ["mean", "var", "grad"]
    plain, info = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"]
    assert not has_depth(plain)
    assert torch.equal(logits(plain.eval(), llava, depth=False), without)
    assert torch.equal(logits(from_pretrained(tmp_path / "saved").eval(), llava), logits(model, llava))


def test_a_saved_bf16_model_keeps_its_embedder_in_fp32(llava, tmp_path) -> None:
    model = trained(llava)
    save_pretrained(model, tmp_path / "saved")
    loaded = from_pretrained(tmp_path / "saved", dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    for name, value in model.depth_embedder.state_dict().items():
        assert torch.equal(loaded.depth_embedder.state_dict()[name], value), name


@pytest.mark.slow
def test_a_quantised_model_does_not_quantise_its_embedder(llava, tmp_path) -> None:
    save_pretrained(trained(llava), tmp_path)
    loaded = from_pretrained(tmp_path)
    quantizer = pytest.importorskip("transformers.quantizers.base").HfQuantizer
    kept = quantizer.get_modules_to_not_convert(loaded, None, loaded._keep_in_fp32_modules)
    assert "depth_embedder" in kept


@pytest.mark.slow
def test_a_model_without_moments_or_training_is_saved_and_loaded_too(llava, tmp_path) -> None:
    expected = logits(add_depth(llava.model), llava)
    save_pretrained(llava.model, tmp_path / "saved")
    assert torch.equal(logits(from_pretrained(tmp_path / "saved").eval(), llava), expected)


@pytest.mark.slow
def test_saving_again_leaves_no_weights_of_the_first_time_and_keeps_other_files(llava, tmp_path) -> None:
    model = trained(llava)
    save_pretrained(model, tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    (tmp_path / "preprocessor_config.json").write_text("{}")
    torch.nn.init.zeros_(model.depth_embedder.layers[2].weight)
    save_pretrained(model, tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    assert (tmp_path / "preprocessor_config.json").exists()
    assert torch.equal(logits(from_pretrained(tmp_path).eval(), llava), logits(model, llava))


def test_a_copy_is_independent_of_its_original(llava) -> None:
    without = logits(llava.model, llava, depth=False)
    model = trained(llava)
    expected = logits(model, llava)
    other = copy.deepcopy(model)
    assert torch.equal(logits(other, llava), expected)
    torch.nn.init.zeros_(other.depth_embedder.layers[2].weight)
    assert torch.equal(logits(other, llava), without)
    assert torch.equal(logits(model, llava), expected)


def test_a_pickled_model_has_depth(llava) -> None:
    other = pickle.loads(pickle.dumps(trained(llava)))
    assert has_depth(other)
    assert torch.equal(logits(other, llava), logits(llava.model, llava))


def test_lora_adapts_the_language_model_only(set_up) -> None:
    for name, part in (("llava", "model.language_model"), ("idefics3", "model.text_model"), ("qwen3_vl", "model.lang")):
        wrapped = add_lora(add_depth(set_up(name).model), targets=("q_proj", "o_proj"))
        trainable = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
        adapters = [name for name in trainable if "lora_" in name]
        assert len(adapters) == 2 * 2 * 2  # layers, targets, factors
        assert all(f"base_model.model.{part}" in name for name in adapters)
        assert all("depth_embedder.modules_to_save" in name for name in set(trainable) - set(adapters))
        assert len(trainable) == len(adapters) + 4


def test_an_adapter_is_bit_equal_when_it_is_loaded(llava, base, tmp_path) -> None:
    wrapped = adapted(llava, base)
    expected = logits(wrapped, llava)
    assert not torch.equal(expected, logits(wrapped, llava, depth=False))
    save_pretrained(wrapped, tmp_path / "adapter")
    names = set(load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert "base_model.model.depth_embedder.layers.2.weight" in names
    assert not any("vision" in name for name in names)
    loaded = from_pretrained(tmp_path / "adapter").eval()
    assert torch.equal(logits(loaded, llava), expected)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(embedder_of(loaded).mean, embedder_of(wrapped).mean)
    again = from_pretrained(tmp_path / "adapter", is_trainable=True)
    assert sum(parameter.requires_grad for parameter in again.parameters()) == 2 * 2 * 2 + 4


def test_an_adapter_inside_data_parallelism_is_saved_as_one(llava, base, tmp_path) -> None:
    save_pretrained(torch.nn.DataParallel(adapted(llava, base)), tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()


@pytest.mark.slow
def test_an_adapter_is_loaded_by_peft_alone(llava, base, tmp_path) -> None:
    wrapped = adapted(llava, base)
    wrapped.save_pretrained(tmp_path / "adapter")  # peft's own
    model = add_depth(transformers.LlavaForConditionalGeneration.from_pretrained(base).eval())
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    assert torch.equal(logits(loaded, llava), logits(wrapped, llava))


@pytest.mark.slow
def test_a_base_that_moved_is_named(llava, base, tmp_path) -> None:
    wrapped = adapted(llava, base)
    save_pretrained(wrapped, tmp_path / "adapter")
    moved = base.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="holds no model of transformers"):
        from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(from_pretrained(tmp_path / "adapter", base=moved).eval(), llava), logits(wrapped, llava))


@pytest.mark.slow
def test_an_adapter_trained_on_a_model_with_depth_is_loaded_on_it(llava, tmp_path) -> None:
    save_pretrained(trained(llava), tmp_path / "first")  # the embedder alone was trained
    wrapped = add_lora(from_pretrained(tmp_path / "first").eval(), rank=2).eval()
    assert torch.equal(logits(wrapped, llava), logits(llava.model, llava))
    save_pretrained(wrapped, tmp_path / "second")
    assert torch.equal(logits(from_pretrained(tmp_path / "second").eval(), llava), logits(llava.model, llava))


@pytest.mark.slow
def test_merged_adapters_are_a_whole_model(llava, base, tmp_path) -> None:
    wrapped = adapted(llava, base)
    expected = logits(wrapped, llava)
    merged = wrapped.merge_and_unload()
    save_pretrained(merged, tmp_path / "merged")
    loaded = from_pretrained(tmp_path / "merged").eval()
    assert torch.equal(logits(loaded, llava), logits(merged, llava))
    torch.testing.assert_close(logits(loaded, llava), expected, rtol=1e-3, atol=1e-4)  # W + BA is rounded once more


def test_an_adapter_of_another_base_model_is_refused(llava, base, set_up, tmp_path) -> None:
    save_pretrained(adapted(llava, base), tmp_path / "adapter")
    other = set_up("llava").model
    with torch.no_grad():
        other.model.multi_modal_projector.linear_1.weight.normal_()
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(
        CheckpointError, match=r"another base model than .*other.*differ in model\.multi_modal_projector"
    ):
        from_pretrained(tmp_path / "adapter", base=tmp_path / "other")
    set_up("paligemma").model.save_pretrained(tmp_path / "paligemma")
    with pytest.raises(CheckpointError, match=r"for a model of type 'llava', but .*paligemma.* is 'paligemma'"):
        from_pretrained(tmp_path / "adapter", base=tmp_path / "paligemma")


@pytest.mark.slow
def test_the_same_base_in_another_dtype_is_accepted(llava, base, tmp_path) -> None:
    save_pretrained(adapted(llava, base), tmp_path / "adapter")
    for dtype in (torch.bfloat16, torch.float16):
        loaded = from_pretrained(tmp_path / "adapter", dtype=dtype)
        assert loaded.get_base_model().dtype == dtype
        assert embedder_of(loaded).mean.dtype == torch.float32


def test_folders_that_cannot_be_loaded_say_why(llava, base, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no 'mvde_depth', so the model has no depth"):
        from_pretrained(base)
    with pytest.raises(CheckpointError, match="holds no model of transformers"):
        from_pretrained(tmp_path / "nowhere")
    wrapped = adapted(llava, base)
    wrapped.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"write adapters with mvde\.vlm\.save_pretrained"):
        from_pretrained(tmp_path / "bare")
    save_pretrained(wrapped, tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = {name: value for name, value in load_file(weights).items() if "layers.2.weight" not in name}
    save_file(tensors, weights)
    with pytest.raises(CheckpointError, match=r"lacks base_model\.model\.depth_embedder\.layers\.2\.weight"):
        from_pretrained(tmp_path / "adapter")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        from_pretrained(tmp_path / "adapter")


def test_a_whole_model_without_its_embedder_is_refused(llava, tmp_path) -> None:
    save_pretrained(trained(llava), tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({n: v for n, v in load_file(weights).items() if "depth" not in n}, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks depth_embedder\.layers\.0\.bias"):
        from_pretrained(tmp_path)
    with pytest.raises(UsageError, match="leave out base="):
        from_pretrained(tmp_path, base=tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"columns": ["mean", "colour"]}, "unknown columns"),
        ({"format": 2}, "reads 1"),
        ({"depth_kind": "guessed"}, "guessed"),
        ({"size": 3}, "unknown key mvde_depth.size"),
        ({"site": {"where": "input"}}, "mvde_depth.site.path is missing"),
    ],
)
def test_a_record_that_is_wrong_names_its_key(llava, tmp_path, record, message) -> None:
    save_pretrained(add_depth(llava.model), tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    stored["mvde_depth"] |= record
    path.write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(tmp_path)


def test_lora_refuses_what_does_not_fit(llava) -> None:
    model = add_depth(llava.model)
    with pytest.raises(
        UsageError, match=r"no linear layer of the language model is named \['out_proj'\]; use down_proj"
    ):
        add_lora(model, targets=("q_proj", "out_proj"))  # the tower has one of that name
    with pytest.raises(UsageError, match="rank"):
        add_lora(model, rank=0)
    with pytest.raises(UsageError, match="adapters already"):
        add_lora(add_lora(model))
