"""forward, generate and training with depth, in every version of transformers."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from mvde.errors import UsageError  # noqa: E402
from mvde.vlm import DepthConfig, Site, add_depth, add_lora, depth_config, given_depth, has_depth, refuse_depth  # noqa: E402

IMAGE = 119


def slow(value: Any) -> Any:
    """A parameter of a test that `make test` leaves out."""
    return pytest.param(value, marks=pytest.mark.slow)


def trained(model: Any, config: DepthConfig | None = None) -> Any:
    """The model with an embedder whose tokens are as large as the tower's."""
    add_depth(model, config)
    torch.nn.init.normal_(model.depth_embedder.layers[2].weight, generator=torch.Generator().manual_seed(3))
    return model


def prompt(made: Any) -> dict[str, Any]:
    """One row that shows all pictures of a set-up and asks a question."""
    grid = made.inputs.get("image_grid_thw")
    counts = [made.num_tokens] if grid is None else (grid.prod(dim=-1) // 4).tolist()
    pictures = [token for count in counts for token in (7, *[IMAGE] * count)]  # 7 is Qwen's mark of a picture
    ids = torch.tensor([[1, *pictures, 5, 6]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more_inputs(made, ids), **made.inputs}


def more_inputs(made: Any, ids: Any) -> dict[str, Any]:
    """What the model's own processor gives beside ids and pictures."""
    wanted = inspect.signature(made.model.forward).parameters
    kinds = (ids == IMAGE).long()
    return {name: kinds for name in ("mm_token_type_ids",) if name in wanted}


def continued(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
    """Tokens that generate adds to the prompt."""
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def test_generate_is_the_argmax_of_forward_with_depth_and_differs_from_without(few_set_ups) -> None:
    inputs = prompt(few_set_ups)
    model, stats = trained(few_set_ups.model), few_set_ups.stats()
    with torch.no_grad():
        logits = model(**inputs, depth_stats=stats).logits[0, -1]
        without = model(**inputs).logits[0, -1]
    assert not torch.equal(logits, without)
    assert continued(model, inputs | {"depth_stats": stats}, max_new_tokens=1).tolist() == [[int(logits.argmax())]]
    options = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True, "pad_token_id": 0}
    step = model.generate(**inputs, depth_stats=stats, **options).logits[0][0]
    torch.testing.assert_close(step, logits, rtol=1e-4, atol=1e-5)
    assert (step - logits).abs().max() < 0.1 * (logits - without).abs().max()


@pytest.mark.parametrize("name", ["llava", *map(slow, ("llava_next", "qwen2_5_vl", "idefics3"))])
def test_generate_says_something_else_with_depth(set_up, name) -> None:
    made = set_up(name)
    inputs, stats = prompt(made), made.stats()
    plain = continued(made.model, inputs)
    model = trained(made.model)
    assert torch.equal(continued(model, inputs), plain)
    assert not torch.equal(continued(model, inputs | {"depth_stats": stats}), plain)


@pytest.mark.parametrize("name", ["llava", *map(slow, ("gemma3", "qwen3_vl"))])
def test_generate_agrees_with_and_without_its_cache(set_up, name) -> None:
    made = set_up(name)
    inputs = prompt(made) | {"depth_stats": made.stats()}
    model = trained(made.model)
    cached = continued(model, inputs, max_new_tokens=4)
    assert torch.equal(cached, continued(model, inputs, max_new_tokens=4, use_cache=False))


def rows_of_pictures(made: Any) -> tuple[dict[str, Any], Any]:
    """Two prompts with one picture each, and the statistics of both."""
    stats = made.stats()
    if "image_grid_thw" in made.inputs:  # of one size, so that the rows have as many tokens
        half = made.inputs["image_grid_thw"][0].prod()
        pixels = torch.cat([made.inputs["pixel_values"][:half], made.inputs["pixel_values"][:half].flip(0)])
        inputs = {"pixel_values": pixels, "image_grid_thw": made.inputs["image_grid_thw"][[0, 0]]}
        stats = torch.cat([stats[:half], stats[:half].flip(0) * 1.7])
        num_tokens = int(half) // 4
    elif "image_sizes" in made.inputs:
        inputs = {**made.inputs, "image_sizes": made.inputs["image_sizes"][[0, 0]]}
        stats, num_tokens = torch.cat([stats[:24], stats[:24].flip(0) * 1.7]), 6
    else:
        inputs, num_tokens = dict(made.inputs), made.num_tokens // 2
    ids = torch.tensor([[1, 7, *[IMAGE] * num_tokens, 5, 6]]).expand(2, -1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more_inputs(made, ids), **inputs}, stats


def row(inputs: dict[str, Any], stats: Any, index: int) -> dict[str, Any]:
    """One of the two prompts with its statistics."""
    both = {**inputs, "depth_stats": stats}
    return {name: value.chunk(2)[index] for name, value in both.items()}


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", *map(slow, ("internvl", "qwen2_vl", "mistral3"))])
@pytest.mark.parametrize("options", [{"num_beams": 3}, slow({"num_beams": 2, "num_return_sequences": 2})])
def test_beams_keep_the_depth_of_their_own_row(set_up, name, options) -> None:
    made = set_up(name)
    inputs, stats = rows_of_pictures(made)
    model = trained(made.model)
    together = continued(model, inputs | {"depth_stats": stats}, **options)
    alone = torch.cat([continued(model, row(inputs, stats, index), **options) for index in range(2)])
    assert torch.equal(together, alone)


@pytest.mark.slow
def test_beams_of_pictures_of_different_sizes_keep_the_depth_of_their_own_row(set_up) -> None:
    made = set_up("mistral3")
    stats = made.stats().split([24, 8])
    model = trained(made.model)

    def asked(rows: list[int]) -> Any:
        counts = [(6, 2)[row] for row in rows]
        ids = torch.tensor([[0] * (max(counts) - count) + [1, *[IMAGE] * count, 5, 6] for count in counts])
        inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        inputs |= {name: value[rows] for name, value in made.inputs.items()}
        return continued(model, inputs | {"depth_stats": torch.cat([stats[row] for row in rows])}, num_beams=3)

    assert torch.equal(asked([0, 1]), torch.cat([asked([0]), asked([1])]))


def test_peft_passes_depth_to_forward_and_generate(set_up) -> None:
    pytest.importorskip("peft")
    made = set_up("llava")
    inputs, stats = prompt(made), made.stats()
    model = trained(made.model)
    with torch.no_grad():
        expected = model(**inputs, depth_stats=stats).logits
        wrapped = add_lora(model).eval()
        assert torch.equal(wrapped(**inputs, depth_stats=stats).logits, expected)
    assert continued(wrapped, inputs | {"depth_stats": stats})[0, 0] == expected[0, -1].argmax()


def gradients(model: Any) -> dict[str, Any]:
    """Gradients by name, and none afterwards."""
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", ["llava", *map(slow, ("internvl", "qwen2_5_vl", "gemma3"))])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_are_the_same_with_gradient_checkpointing(set_up, name, reentrant) -> None:
    made = set_up(name)
    inputs, stats = prompt(made), made.stats()
    model = trained(made.model).train()
    loss = {"labels": inputs["input_ids"], "use_cache": False}
    if name == "gemma3":
        loss["token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    model(**inputs, **loss, depth_stats=stats).loss.backward()
    expected = gradients(model)
    assert bool((expected["depth_embedder.layers.0.weight"] != 0).any())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    model(**inputs, **loss, depth_stats=stats).loss.backward()
    found = gradients(model)
    assert_same({name: found[name] for name in expected}, expected)


class Recomputed(torch.nn.Module):
    """A module whose activations are computed again during the backward pass, as wrappers of FSDP do."""

    def __init__(self, inner: Any, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, tokens: Any) -> Any:
        return checkpoint(self.inner, tokens, use_reentrant=self.reentrant)


def site_recomputed(model: Any, reentrant: bool) -> None:
    """Put the site's module, with its hooks, into a checkpoint."""
    model.model.multi_modal_projector = Recomputed(model.model.multi_modal_projector, reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputed_site_gets_the_depth_of_its_forward_pass(set_up, reentrant) -> None:
    made = set_up("llava")
    inputs, stats = prompt(made), made.stats()
    other_inputs = {**inputs, "pixel_values": inputs["pixel_values"].flip(0) * 1.5}
    model = trained(made.model)

    def losses() -> Any:
        first = model(**inputs, labels=inputs["input_ids"], depth_stats=stats).loss
        second = model(**other_inputs, labels=inputs["input_ids"], depth_stats=stats.flip(1) * 2).loss
        return first + 2 * second  # both forward passes come before the backward pass

    losses().backward()
    expected = gradients(model)
    site_recomputed(model, reentrant)
    losses().backward()
    found = {name.replace(".inner", ""): value for name, value in gradients(model).items()}
    assert_same(found, expected)


def test_steps_on_the_same_pictures_with_other_depth_are_told_apart(set_up) -> None:
    made = set_up("llava")
    inputs, stats = prompt(made), made.stats()
    model = trained(made.model)
    steps = [stats, stats * 2, None, stats]

    def step(depth: Any) -> dict[str, Any]:
        model(**inputs, labels=inputs["input_ids"], depth_stats=depth).loss.backward()
        return {name.replace(".inner", ""): value for name, value in gradients(model).items()}

    expected = [step(depth) for depth in steps]
    model._mvde_site_hook.remembered.clear()
    site_recomputed(model, reentrant=False)
    for depth, gradient in zip(steps, expected, strict=True):
        assert_same(step(depth), gradient)


def test_a_recomputed_site_that_cannot_know_its_depth_raises(set_up) -> None:
    made = set_up("llava")
    inputs, stats = prompt(made), made.stats()
    model = trained(made.model)
    site_recomputed(model, reentrant=False)
    labels = inputs["input_ids"]
    first = model(**inputs, labels=labels, depth_stats=stats).loss
    second = model(**inputs, labels=labels, depth_stats=stats * 2).loss
    with pytest.raises(UsageError, match="run backward after each forward pass"):
        (first + second).backward()


def test_a_bf16_model_and_autocast_take_depth_in_fp32(set_up) -> None:
    made = set_up("llava")
    inputs, stats = prompt(made), made.stats()
    model = trained(made.model)
    with torch.no_grad():
        expected = model(**inputs, depth_stats=stats).logits
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(**inputs, depth_stats=stats).logits
        model.to(torch.bfloat16)
        pixels = {"pixel_values": inputs["pixel_values"].bfloat16()}
        low = model(**inputs | pixels, depth_stats=stats).logits
    assert low.dtype == torch.bfloat16
    for found in (mixed, low):
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_a_patch_without_depth_changes_no_bit_of_the_answer(set_up) -> None:
    made = set_up("llava")
    inputs = prompt(made)
    with torch.no_grad():
        plain = made.model(**inputs).logits
        model = trained(made.model)
        assert torch.equal(model(**inputs, depth_stats=torch.zeros(2, 16, 3)).logits, plain)
        assert torch.equal(model(**inputs).logits, plain)
        assert torch.equal(model(**inputs, depth_stats=None).logits, plain)


@pytest.mark.slow
def test_trainer_keeps_the_column_and_trains_the_embedder(set_up, tmp_path) -> None:
    pytest.importorskip("accelerate")
    made = set_up("llava")
    ids = torch.tensor([1, *[IMAGE] * 16, 5, 6])
    pixels, stats = made.inputs["pixel_values"], made.stats()
    rows = [
        {"input_ids": ids, "labels": ids, "pixel_values": pixels[i], "depth_stats": stats[i], "name": torch.tensor(i)}
        for i in range(2)
    ]
    model = add_depth(made.model, moments=stats)
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    assert bool((model.depth_embedder.layers[2].weight != 0).any())


def test_a_model_without_depth_refuses_depth_stats(set_up) -> None:
    made = set_up("llava")
    inputs, stats = prompt(made), made.stats()
    model = refuse_depth(refuse_depth(made.model))
    assert not has_depth(model)
    model(**inputs)
    with pytest.raises(UsageError, match=r"LlavaForConditionalGeneration has no depth.*mvde\.vlm\.add_depth"):
        model(**inputs, depth_stats=stats)
    with pytest.raises(ValueError, match="depth_stats"):  # transformers' own
        continued(model, inputs | {"depth_stats": stats})
    for ask in (depth_config, lambda m: given_depth(m, stats).__enter__()):
        with pytest.raises(UsageError, match="has no depth"):
            ask(model)
    add_depth(model)
    model(**inputs, depth_stats=stats)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llava", lambda s: s[:, :9], r"depth_stats \(2, 9, 3\) have 18 rows, but the tower gave 32 patches"),
        ("llava", lambda s: s[..., :2], r"must be \(\.\.\., N, 3\) with the columns mean, var, grad"),
        ("llava", lambda s: s[0, 0], r"but got \(3,\)"),
        ("llava", lambda s: s.numpy(), "but got ndarray"),
        ("qwen2_5_vl", lambda s: s[:-4], r"depth_stats \(116, 3\) have 116 rows, but the tower gave 120"),
        (
            "llava_next_ragged",
            lambda s: s[:, :4],
            r"are not \(images, tiles, N, S\) of pixel_values \(2, 5, 3, 64, 64\)",
        ),
        ("idefics3", lambda s: s[:1], r"are not \(images, tiles, N, S\)"),
    ],
)
def test_statistics_of_another_grid_are_refused(set_up, name, change, message) -> None:
    made = set_up(name)
    inputs = prompt(made)
    model = add_depth(made.model)
    with pytest.raises(UsageError, match=message):
        model(**inputs, depth_stats=change(made.stats()))


def test_depth_without_a_picture_is_refused(set_up) -> None:
    made = set_up("llava")
    model, ids = add_depth(made.model), torch.tensor([[1, 5, 6]])
    for ask in (
        lambda: model(input_ids=ids, depth_stats=made.stats()),
        lambda: model.generate(input_ids=ids, depth_stats=made.stats(), max_new_tokens=1),
    ):
        with pytest.raises(UsageError, match="the model encoded no image"):
            ask()
    with pytest.raises(UsageError, match="for pictures, but pixel_values_videos"):
        model(input_ids=ids, depth_stats=made.stats(), pixel_values_videos=torch.zeros(1))


def test_an_error_of_the_model_itself_is_raised_as_it_is(set_up) -> None:
    made = set_up("llava")
    model = add_depth(made.model)
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model(pixel_values=made.inputs["pixel_values"], depth_stats=made.stats())


def test_positional_arguments_are_understood(set_up) -> None:
    made = set_up("llava_next_ragged")
    inputs, stats = prompt(made), made.stats()
    model = trained(made.model)
    with torch.no_grad():
        named = model(**inputs, depth_stats=stats).logits
        rest = {name: inputs[name] for name in ("attention_mask", "image_sizes")}
        assert torch.equal(model(inputs["input_ids"], inputs["pixel_values"], **rest, depth_stats=stats).logits, named)


def test_two_models_in_one_process_do_not_share_depth(set_up) -> None:
    made, other = set_up("llava"), set_up("llava_384_14")
    inputs, stats = prompt(made), made.stats()
    other_inputs = prompt(other)
    with torch.no_grad():
        plain = other.model(**other_inputs).logits
        model, second = trained(made.model), trained(other.model)
        with given_depth(model, stats):
            assert torch.equal(second(**other_inputs).logits, plain)
            model(**inputs)


class Vila(torch.nn.Module):
    """A model with a projector of its own, outside transformers' table."""

    def __init__(self) -> None:
        super().__init__()
        self.config = (
            transformers.PreTrainedConfig(model_type="vila")
            if hasattr(transformers, "PreTrainedConfig")
            else transformers.PretrainedConfig()
        )
        self.mm_projector = torch.nn.Linear(12, 20)

    def forward(self, media: Any) -> Any:
        return self.mm_projector(media)


def test_another_model_takes_a_site_of_its_own() -> None:
    model, media, stats = Vila(), torch.randn(1, 9, 12), torch.rand(1, 9, 3) + 0.1
    before = model(media)
    with pytest.raises(UsageError, match=r"not known where depth enters.*known types: aya_vision"):
        add_depth(model)
    with pytest.raises(UsageError, match=r"no module 'projector'; its parts are mm_projector"):
        add_depth(model, DepthConfig(site=Site(path="projector"), width=12))
    with pytest.raises(UsageError, match="does not state the width of its tower"):
        add_depth(model, DepthConfig(site=Site(path="mm_projector")))
    trained(model, DepthConfig(site=Site(path="mm_projector"), width=12))
    assert torch.equal(model(media), before)
    moved = (model(media, depth_stats=stats) != before).any(dim=-1)
    assert bool(moved.all())


def test_calls_in_threads_keep_their_own_depth() -> None:
    # transformers 5.0 itself patches a model while it runs: this model is not one of its classes.
    model, media = Vila(), torch.randn(1, 9, 12)
    trained(model, DepthConfig(site=Site(path="mm_projector"), width=12))
    variants = [torch.rand(1, 9, 3) + 0.1 for _ in range(4)]
    expected = [model(media, depth_stats=stats) for stats in variants]
    together = threading.Barrier(4)

    def wait(module: Any, args: Any) -> None:
        together.wait(timeout=20)  # no thread adds its depth before all have given theirs

    model.mm_projector.register_forward_pre_hook(wait, prepend=True)
    found: list[Any] = [None] * 4

    def ask(index: int) -> None:
        found[index] = model(media, depth_stats=variants[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_width_that_is_wrong_names_the_right_one(set_up) -> None:
    made = set_up("llava")
    inputs = prompt(made)
    model = add_depth(made.model, DepthConfig(width=30))
    with pytest.raises(UsageError, match=r"give DepthConfig\(width=32\)"):
        model(**inputs, depth_stats=made.stats())


def test_depth_is_added_once_and_to_models_of_transformers(set_up) -> None:
    model = add_depth(set_up("llava").model)
    with pytest.raises(UsageError, match="has depth already"):
        add_depth(model)
    with pytest.raises(UsageError, match="but got a Linear"):
        add_depth(torch.nn.Linear(2, 2))
    pytest.importorskip("peft")
    wrapped = add_lora(set_up("llava").model)
    with pytest.raises(UsageError, match="inside a PeftModel; add depth first, then adapters"):
        add_depth(wrapped)


def test_a_whole_model_in_a_checkpoint_has_the_same_gradients(set_up) -> None:
    made = set_up("llava")
    inputs, stats = prompt(made), made.stats()
    model = trained(made.model)

    def loss(pixels: Any, depth: Any) -> Any:
        given = inputs | {"pixel_values": pixels}
        return model(**given, labels=inputs["input_ids"], depth_stats=depth, use_cache=False).loss

    loss(inputs["pixel_values"], stats).backward()
    expected = gradients(model)
    checkpoint(loss, inputs["pixel_values"], stats, use_reentrant=False).backward()
    assert_same(gradients(model), expected)


def test_depth_can_be_given_around_a_call_that_trains(set_up) -> None:
    made = set_up("llava")
    inputs, stats = prompt(made), made.stats()
    model = trained(made.model)
    with given_depth(model, stats):
        around = model(**inputs).logits
    assert torch.equal(around, model(**inputs, depth_stats=stats).logits)


def test_a_failed_attempt_leaves_the_model_as_it_was(set_up) -> None:
    made = set_up("llava")
    kind = type(made.model)
    with pytest.raises(UsageError):
        add_depth(made.model, DepthConfig(site=Site(path="model.nowhere")))
    assert type(made.model) is kind
    assert not has_depth(made.model)
    assert not hasattr(made.model, "depth_embedder")
