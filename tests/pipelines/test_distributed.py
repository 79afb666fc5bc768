"""Training on two processes with half of each batch equals training on one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from omegaconf import OmegaConf  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

STEPS = 4
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def losses(output: str) -> list[float]:
    lines = [line.split() for line in output.splitlines() if line.startswith("step ")]
    return [float(words[words.index("loss") + 1]) for words in lines]


def run(prefix: list[str], config: Path, output_dir: Path) -> str:
    command = [*prefix, "-m", "mvde", "train", "--config", str(config), "--output_dir", str(output_dir)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow  # three processes import torch and transformers
def test_two_processes_train_as_one(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    # The backbone is unfrozen at step 2 and the decoder frozen in step 3, which covers both transitions.
    stages = [{"steps": STEPS - 1, "res": [32]}, {"steps": 1, "res": [32], "supervise": "tokens"}]
    OmegaConf.save(OmegaConf.create(tiny_config(stages=stages, freeze_backbone_steps=2)), config)
    alone = run([sys.executable], config, tmp_path / "alone")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    together = run([*launch, "--main_process_port", str(free_port())], config, tmp_path / "together")
    assert len(losses(alone)) == STEPS
    # Printed to four decimals; summation order differs.
    assert losses(together) == pytest.approx(losses(alone), abs=2e-4)
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("alone", "together"))
    for name in ours:
        # Adam normalises gradients, so rounding of a tiny one can become a fraction of a step (2e-3).
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3)
