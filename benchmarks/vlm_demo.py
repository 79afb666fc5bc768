"""Trains a tiny vision-language model with depth on rendered rooms, and asks it about one, with and without depth.

Every step is a command that works the same with a real model; only the model is tiny and made here, because none can
be downloaded. What it shows: depth reaches the language model, aligned with the picture, and is used. What it does not
show: how well a real model answers.

    python benchmarks/vlm_demo.py --out build/vlm-demo
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import torch

from mvde import cli
from mvde.datasets.synthetic import SyntheticDataset
from mvde.errors import MvdeError
from mvde.vlm.conversations import Conversation, read_conversations
from mvde.vlm.tiny import write_tiny

NUM_QUESTIONS = 4


def run(command: str) -> None:
    """Print and run a command line of mvde; raise MvdeError if it fails."""
    print(f"$ mvde {command}", flush=True)
    if cli.execute(shlex.split(command)):
        raise MvdeError(f"mvde {command} failed")


def make_model(folder: Path, frames: Path, steps: int) -> None:
    """Write the tiny model, which learns on the frames' RGB to see the boxes, and nothing about distances."""
    if not folder.exists():
        dataset = SyntheticDataset(frames)
        print(f"# teaching a tiny LLaVA-SigLIP with random weights to see boxes ({steps} steps)", flush=True)
        write_tiny(folder, (dataset[number].rgb for number in range(len(dataset))), steps)


def ask(model: Path, one: Conversation) -> None:
    """Ask one question with and without depth, and print the truth."""
    question = shlex.quote(one.turns[0].question)
    print(f"# in truth: {one.turns[0].answer} ({one.facts['cue']})")
    run(f"vlm ask {one.image} {question} --model {model} --depth-file {one.depth}")
    run(f"vlm ask {one.image} {question} --model {model} --without-depth")


def main() -> None:
    """Render, ask, train, evaluate, and ask about one room."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/vlm-demo"), help="Folder; what is there is kept.")
    parser.add_argument("--frames", type=int, default=256, help="Frames to train on.")
    parser.add_argument("--pretraining", type=int, default=800, help="Steps of learning to see the boxes.")
    parser.add_argument("--steps", type=int, default=800, help="Steps of training with depth.")
    options = parser.parse_args()
    torch.set_num_threads(1)  # products are small: beside other work, two threads wait for each other
    out, asked = options.out, "--format synthetic --cells 4 --distances preferred --ask relative --ask metric"
    run(f"data synth --count {options.frames} --size 64x64 --seed 5 --out {out}/rooms")
    run(f"data synth --count {max(options.frames // 4, 8)} --size 64x64 --seed 5 --split test --out {out}/others")
    run(f"vlm qa {out}/rooms {asked} --pairs 8 --out {out}/train.json")
    run(f"vlm qa {out}/others {asked} --pairs 2 --out {out}/test.json")
    make_model(out / "tiny", out / "rooms", options.pretraining)
    run(
        f"vlm train --model {out}/tiny --data {out}/train.json --embedder-steps 0 --steps {options.steps} "
        f"--batch-size 32 --lr 4e-3 --lora-rank 8 --out {out}/model"
    )
    run(f"vlm eval {out}/test.json --model {out}/model --batch-size 64 --answers {out}/answers.jsonl")
    conversations = read_conversations(out / "test.json")
    for one in [found for found in conversations if found.facts["frame"] == conversations[0].facts["frame"]][
        :NUM_QUESTIONS
    ]:
        ask(out / "model", one)


if __name__ == "__main__":
    main()
