"""The projector learns a teacher's tokens from patch statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mvde.errors import CheckpointError, DatasetError, UsageError  # noqa: E402
from mvde.pipelines.train_head import load_head, train_head  # noqa: E402


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Six images of 40 patches; tokens are smooth functions of the log statistics."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 5))
    folder = tmp_path / "pairs"
    folder.mkdir()
    for index in range(6):
        stats = np.exp(rng.normal(0, 1, (40, 3))).astype(np.float32)
        np.savez(folder / f"{index}.npz", stats=stats, tokens=np.sin(np.log(stats) @ mixing).astype(np.float32))
    return folder


def test_the_head_beats_the_mean_token_on_patches_it_did_not_see(pairs: Path, tmp_path: Path) -> None:
    result = train_head(pairs, tmp_path / "head.safetensors", hidden_width=64, steps=400, batch_size=64, lr=5e-3)
    assert result.error < 0.5 * result.error_of_mean


def test_a_saved_head_gives_the_same_tokens(pairs: Path, tmp_path: Path) -> None:
    first = train_head(pairs, tmp_path / "a.safetensors", steps=5)
    second = train_head(pairs, tmp_path / "b.safetensors", steps=5)
    assert first.error == second.error  # fully determined by the seed
    stats = torch.rand(2, 7, 3)
    tokens = load_head(first.path)(stats)
    assert tokens.shape == (2, 7, 5)
    assert torch.equal(tokens, load_head(second.path)(stats))


def test_faults_name_the_file(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no \.npz"):
        train_head(tmp_path, tmp_path / "head.safetensors")
    np.savez(pairs / "7.npz", stats=np.ones((4, 2)), tokens=np.ones((4, 5)))
    with pytest.raises(DatasetError, match=r"7\.npz has 2 statistics"):
        train_head(pairs, tmp_path / "head.safetensors")
    np.savez(pairs / "7.npz", stats=np.ones((4, 3)), tokens=np.ones((3, 5)))
    with pytest.raises(DatasetError, match=r"7\.npz: stats"):
        train_head(pairs, tmp_path / "head.safetensors")
    (pairs / "7.npz").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"7\.npz is not an archive"):
        train_head(pairs, tmp_path / "head.safetensors")
    with pytest.raises(UsageError, match="positive"):
        train_head(pairs, tmp_path / "head.safetensors", steps=0)
    assert not (tmp_path / "head.safetensors").exists()


def test_only_heads_are_loaded_as_heads(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors is not a head"):
        load_head(tmp_path / "other.safetensors")
