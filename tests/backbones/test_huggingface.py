"""Small random depth models of transformers behind the DepthModel interface."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mvde.backbones.huggingface import DepthKind  # noqa: E402
from mvde.errors import CheckpointError, ResolutionError  # noqa: E402
from mvde.model import DepthModelFactory, HuggingFaceDepthModel  # noqa: E402


def _depth_anything(**changed: Any) -> Any:
    backbone = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14, mlp_ratio=2,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=8, patch_size=14, **changed,
    )  # fmt: skip
    return transformers.DepthAnythingForDepthEstimation(config)


def _dpt() -> Any:
    config = transformers.DPTConfig(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, readout_type="ignore",
        is_hybrid=False,
    )  # fmt: skip
    return transformers.DPTForDepthEstimation(config)


MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    "depth anything, metric": (lambda: _depth_anything(depth_estimation_type="metric", max_depth=20), 14),
    "depth anything, relative": (_depth_anything, 14),
    "dpt": (_dpt, 16),
}


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, HuggingFaceDepthModel, int]:
    """Model of transformers, mvde's model loaded from its saved directory, and the patch size."""
    make, patch_size = MODELS[request.param]
    torch.manual_seed(0)
    reference = make().eval()
    reference.save_pretrained(tmp_path)
    ours = DepthModelFactory.create_huggingface_model(str(tmp_path), image_size=4 * patch_size)
    return reference, ours, patch_size


def test_depth_is_that_of_transformers(pair: tuple[Any, HuggingFaceDepthModel, int]) -> None:
    reference, ours, patch_size = pair
    rows, columns = (4, 6) if patch_size == 14 else (6, 6)  # transformers' DPT takes square images only
    images = torch.rand(2, 3, rows * patch_size, columns * patch_size)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.no_grad():
        expected = reference(pixels).predicted_depth
    depth = ours.predict_depth(images)
    assert ours.patch_size == patch_size
    assert depth.shape == (2, rows * patch_size, columns * patch_size)
    if ours.depth.kind is DepthKind.INVERSE:
        assert ours.config.decoder.scale_invariant
        expected = 1 / expected.clamp(min=1e-4)
    else:
        assert ours.config.decoder.max_depth == 20
    torch.testing.assert_close(depth, expected)
    assert ours.compute_patch_stats(depth).shape == (2, rows * columns, 3)


def test_at_a_fixed_resolution_the_position_embedding_is_a_constant(
    pair: tuple[Any, HuggingFaceDepthModel, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ours, patch_size = pair
    resolution = (6 * patch_size, (2 if patch_size == 14 else 6) * patch_size)
    pixels = torch.randn(1, 3, *resolution)
    with torch.no_grad():
        expected = ours.depth_from_pixels(pixels)
        fixed = ours.at_resolution(resolution)
        resampled: list[str] = []
        interpolate = torch.nn.functional.interpolate

        def noting(*args: Any, **kwargs: Any) -> torch.Tensor:
            resampled.append(f"{args[0].shape[1]} channels")
            return interpolate(*args, **kwargs)

        monkeypatch.setattr(torch.nn.functional, "interpolate", noting)
        torch.testing.assert_close(fixed(pixels), expected)
        assert resampled  # in the decoder, but not over the tokens' 24 channels
        assert not [what for what in resampled if what == "24 channels"]
        torch.testing.assert_close(ours.depth_from_pixels(pixels), expected)  # the original module still resamples
        assert [what for what in resampled if what == "24 channels"]


def test_exported_it_gives_its_depth_without_resampling_positions(
    pair: tuple[Any, HuggingFaceDepthModel, int], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from mvde.export.graph.save import save_model
    from mvde.export.torch_graph import traced

    _, ours, patch_size = pair
    resolution = (6 * patch_size, 6 * patch_size)
    image = torch.randint(0, 256, (1, 3, *resolution), dtype=torch.uint8)
    expected = ours.predict_depth(image).numpy()
    with traced(ours, resolution) as graph:
        modes = [node.attributes["mode"].as_string() for node in graph.graph if node.op_type == "Resize"]
        save_model(graph, tmp_path / "model.onnx", {})
    assert modes  # in the decoder
    assert "cubic" not in modes
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (depth,) = session.run(None, {"image": image.permute(0, 2, 3, 1).numpy()})
    # Same as an export's parity: two float32 evaluations that differ in summation order.
    assert abs(depth / expected - 1).max() < 1e-4


def test_what_the_output_means_can_be_stated(tmp_path: Path) -> None:
    _dpt().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    model = DepthModelFactory.create_huggingface_model(str(tmp_path), (64, 96), kind=DepthKind.METRIC)
    assert not model.config.decoder.scale_invariant
    assert model.config.vit.image_size == (64, 96)
    assert model.mean.flatten().tolist() == [0.5] * 3


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot load pretrained weights"):
        DepthModelFactory.create_huggingface_model(str(tmp_path), 64)
    _dpt().save_pretrained(tmp_path)
    with pytest.raises(ResolutionError, match="64x64 or 80x80"):
        DepthModelFactory.create_huggingface_model(str(tmp_path), 70)
    with pytest.raises(ResolutionError, match="takes square images only, but got 64x96"):
        DepthModelFactory.create_huggingface_model(str(tmp_path), 64).predict_depth(torch.rand(1, 3, 64, 96))
