"""Training in processes that are forked from one server, which imports PyTorch once for all of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

_SERVER = multiprocessing.get_context("forkserver")
_IMPORTED = ["accelerate", "mvde.pipelines.train_depth", "transformers.models.siglip.modeling_siglip"]
"""What takes a process 15 s of CPU to import, and a run of a tiny model a second to do."""
_LIMIT_S = 240


class Run(NamedTuple):
    """A training run: its configuration, and the folder of each of its processes, which runs in the folder above."""

    config: dict[str, Any]
    folders: Sequence[Path]


def train(run: Run) -> list[dict[str, Any]]:
    """Train with a process for each folder; return what each ended with: its result or ``error``, and its ``output``.

    A process that has not ended after four minutes is killed, and fails the test.
    """
    _SERVER.set_forkserver_preload(_IMPORTED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    processes = [_SERVER.Process(target=_train, args=(run, rank, port)) for rank in range(len(run.folders))]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_LIMIT_S)
        if process.is_alive():
            for other in processes:
                other.kill()
            raise TimeoutError(f"a process of {run.folders} was still running after {_LIMIT_S} s")
    return [json.loads(_outcome(folder, rank).read_text()) for rank, folder in enumerate(run.folders)]


def _outcome(folder: Path, rank: int) -> Path:
    return folder.with_name(f"{folder.name}-{rank}.json")


def _train(run: Run, rank: int, port: int) -> None:
    folder, number = run.folders[rank], str(rank)
    if len(run.folders) > 1:
        os.environ |= {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": str(len(run.folders))}
        os.environ |= {"LOCAL_WORLD_SIZE": str(len(run.folders)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    os.chdir(folder.parent)
    import torch

    from mvde.pipelines.train_depth import DepthTrainingPipeline

    torch.set_num_threads(1)
    log = folder.with_name(f"{folder.name}-{rank}.log")
    outcome: dict[str, Any]
    with log.open("w") as stream, redirect_stdout(stream):
        try:
            outcome = asdict(DepthTrainingPipeline(run.config).train(folder)) | {"output_dir": None}
        except Exception as error:  # noqa: BLE001 - the test judges it
            outcome = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    _outcome(folder, rank).write_text(json.dumps(outcome | {"output": log.read_text()}))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
