"""Models that cannot be loaded: one sentence each that says what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvde.contract import DepthKind
from mvde.errors import CheckpointError, MvdeError, UsageError
from mvde.families import FamilyOptions, family_of
from mvde.families.base import describe
from mvde.families.checkpoint import open_model

Save = Callable[[str], Path]


@pytest.fixture
def copied(saved: Save, tmp_path: Path) -> Callable[..., Path]:
    """Copy of a tiny model whose files were changed; ``None`` removes a key."""

    def copy(key: str, config: dict[str, Any] | None = None, processor: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / key
        shutil.copytree(saved(key), folder)
        for name, changed in (("config.json", config or {}), ("preprocessor_config.json", processor or {})):
            plain = {**json.loads((folder / name).read_text()), **changed}
            plain = {key: value for key, value in plain.items() if value is not None}
            (folder / name).write_text(json.dumps(plain))
        return folder

    return copy


def described(folder: Path, kind: DepthKind | None = None, domain: str | None = None) -> Any:
    """Description of the model in a folder, without loading its weights."""
    model, options = open_model(str(folder)), FamilyOptions(kind, domain)
    return describe(family_of(model, options), model, options)


def test_folders_that_hold_no_model_are_refused(tmp_path: Path, saved: Save) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json, so it is not a model of transformers"):
        open_model(str(tmp_path))
    with pytest.raises(CheckpointError, match="there is no folder"):
        open_model(str(tmp_path / "absent" / "deeper"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        open_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no model_type"):
        open_model(str(tmp_path))
    with pytest.raises(CheckpointError, match="is a file"):
        open_model(str(tmp_path / "config.json"))
    with pytest.raises(UsageError, match="is a folder, which has no revision"):
        open_model(str(saved("depth-anything")), revision="main")


def test_weights_that_can_run_code_are_not_loaded(copied: Callable[..., Path]) -> None:
    folder = copied("depth-anything")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"only as pytorch_model\.bin, which can run code"):
        open_model(str(folder))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        open_model(str(folder))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"lacks the weights \.\./elsewhere"):
        open_model(str(folder))


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("chmv2", "tree canopies"),
        ("prompt_depth_anything", "a depth image as a second input"),
        ("video_depth_anything", "several frames at once"),
        ("some_video_depth", "several frames at once"),
    ],
)
def test_models_that_are_no_image_to_depth_are_refused_in_one_sentence(
    model_type: str, why: str, copied: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=why) as caught:
        described(copied("depth-anything", {"model_type": model_type}), DepthKind.METRIC)
    assert "\n" not in str(caught.value)


def test_models_of_another_task_and_unknown_types_are_refused(copied: Callable[..., Path], tmp_path: Path) -> None:
    folder = copied("dpt", {"architectures": ["DPTForSemanticSegmentation"]})
    with pytest.raises(CheckpointError, match=r"is a DPTForSemanticSegmentation .* not a depth model"):
        described(folder)
    shutil.rmtree(folder)
    folder = copied("dpt", {"model_type": "future_depth", "architectures": ["FutureForDepthEstimation"]})
    with pytest.raises(CheckpointError, match=r"not among mvde's families .*depth_anything.* needs --kind"):
        described(folder)
    assert described(folder, DepthKind.METRIC).depth_kind is DepthKind.METRIC
    with pytest.raises(UsageError, match="canonical camera"):
        described(folder, DepthKind.METRIC_FOCAL)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"needs a preprocessor_config\.json"):
        described(folder, DepthKind.METRIC)
    shutil.rmtree(folder)
    folder = copied("dpt", {"model_type": "odd", "auto_map": {"AutoModel": "odd.py"}})
    with pytest.raises(CheckpointError, match="needs code from the hub"):
        described(folder, DepthKind.METRIC)


def test_a_kind_is_asked_for_and_never_contradicts_the_model(saved: Save, copied: Callable[..., Path]) -> None:
    for key in ("dpt", "glpn", "zoedepth", "tipsv2"):
        with pytest.raises(UsageError, match="give --kind"):
            described(saved(key))
    with pytest.raises(UsageError, match="depth_estimation_type 'relative'"):
        described(saved("depth-anything"), DepthKind.METRIC)
    with pytest.raises(UsageError, match="contradicts Depth Pro"):
        described(saved("depth-pro"), DepthKind.SCALE_INVARIANT)
    with pytest.raises(UsageError, match="needs the field-of-view head"):
        described(copied("depth-pro", {"use_fov_model": False}), DepthKind.METRIC)
    known = copied("dpt", {"_name_or_path": "Intel/dpt-large"})
    assert described(known).depth_kind is DepthKind.INVERSE_RELATIVE
    assert described(known).origin.licence == "apache-2.0"
    with pytest.raises(UsageError, match="Intel/dpt-large gives inverse_relative"):
        described(known, DepthKind.METRIC)


def test_a_domain_is_asked_for_where_there_are_several(saved: Save) -> None:
    with pytest.raises(UsageError, match="--domain nyu or --domain kitti"):
        described(saved("zoedepth-two"), DepthKind.METRIC)
    with pytest.raises(UsageError, match="no domain 'mars'"):
        described(saved("zoedepth-two"), DepthKind.METRIC, "mars")
    with pytest.raises(UsageError, match="one head only"):
        described(saved("zoedepth"), DepthKind.METRIC, "nyu")
    assert described(saved("zoedepth-two"), DepthKind.METRIC, "kitti").valid_range == (0.001, 80.0)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"image_mean": [0.5, 0.5]}, "image_mean .* three numbers"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std .* positive"),
        ({"image_mean": [123.7, 116.3, 103.5]}, "contradicts itself"),
        ({"do_rescale": False}, "contradicts itself"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"resample": 1}, "resamples with filter 1"),
        ({"size": {"shortest_edge": 518}}, "height and width"),
        ({"size": {"height": 0, "width": 56}}, "positive whole number"),
        ({"ensure_multiple_of": 1.5}, "ensure_multiple_of"),
        ({"do_center_crop": True}, "crops images"),
        ({"image_processor_type": "CLIPImageProcessor"}, "that of CLIPImageProcessor"),
    ],
)
def test_preprocessor_files_that_contradict_themselves_are_refused(
    changed: dict[str, Any], match: str, copied: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=match):
        described(copied("depth-anything", processor=changed))


def test_a_missing_preprocessor_file_and_two_that_disagree_are_refused(copied: Callable[..., Path]) -> None:
    folder = copied("depth-anything")
    given = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": {**given, "image_mean": [0.1] * 3}}))
    with pytest.raises(CheckpointError, match="contradict each other"):
        described(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": given}))
    (folder / "preprocessor_config.json").unlink()
    assert described(folder).preprocess.mean == (0.485, 0.456, 0.406)
    (folder / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no preprocessor_config\.json"):
        described(folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Save) -> Path:
    """Cache of the hub with a copy of the tiny Depth Anything as ``someone/tiny``; the hub itself is off."""
    import huggingface_hub

    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / ("ab" * 20)
    shutil.copytree(saved("depth-anything"), snapshot)
    (snapshot / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [depth]\n---\n# Tiny\n")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("ab" * 20)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_hub_name_keeps_its_own_preprocessing_revision_and_licence(hub: Path) -> None:
    model = open_model("someone/tiny")
    assert (model.path, model.revision, model.licence) == (hub, "ab" * 20, "cc-by-nc-4.0")
    origin = described(hub).origin
    assert described(hub).preprocess.mean == (0.485, 0.456, 0.406)
    assert origin.kind == "transformers"


def test_names_that_are_not_there_offline_are_refused_at_once(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    with pytest.raises(CheckpointError, match="offline"):
        open_model("someone/absent")
    asked = []

    class Api:
        def model_info(self, name: str, **_: Any) -> None:
            asked.append(name)
            raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(CheckpointError, match=r"the hub did not answer \(no route to host\)"):
        open_model("someone/absent")
    assert asked == ["someone/absent"]


def test_gated_names_say_how_to_get_in(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class GatedRepoError(Exception):
        pass

    class Api:
        def model_info(self, name: str, **_: Any) -> None:
            raise GatedRepoError(name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(MvdeError, match="gated; accept its terms"):
        open_model("someone/gated")


def test_weights_of_another_architecture_are_refused(copied: Callable[..., Path]) -> None:
    from mvde.families import load_family_model

    folder = copied("depth-anything", {"head_hidden_size": 16})
    with pytest.raises(CheckpointError, match=r"cannot load the depth model|do not fit"):
        load_family_model(str(folder))
