"""``mvde vlm``: depth for vision-language models: questions, training, evaluation, answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvde.cli.groups import with_groups
from mvde.cli.output import STDOUT, write_json
from mvde.cli.shared_options import (
    DEPTH_SCALE_HELP,
    FORMAT_HELP,
    FRAMES_HELP,
    JSON_HELP,
    OUT_HELP,
    SEED_HELP,
    SPLIT_HELP,
    TRANSFORMERS_HELP,
    CameraOptions,
    EngineSelection,
    only,
)
from mvde.cli.terminal import console, say
from mvde.datasets.formats import DataFormat
from mvde.datasets.splits import Split
from mvde.errors import MissingDependencyError, UsageError
from mvde.vlm.choices import EvaluationFormat, QuestionKind, Rounding

if TYPE_CHECKING:
    from mvde.vlm.evaluation import Evaluation

IMAGE_FOLDER_HELP = "Folder of the pictures. Default: that of the file which names them."
BASE_HELP = "Base model of an adapter, if it is not where it was."
_BATCH_HELP = "Examples per step, in each process."


def register(app: typer.Typer) -> None:
    """Add the verb and its sub-verbs to the application."""
    vlm = typer.Typer(no_args_is_help=True, help="Depth for vision-language models.", rich_markup_mode=None)
    vlm.callback()(_vlm)
    vlm.command("qa")(qa)
    vlm.command("train")(with_groups(train))
    vlm.command("eval")(with_groups(evaluate))
    vlm.command("ask")(with_groups(ask))
    app.add_typer(vlm, name="vlm")


def _vlm() -> None:
    """Depth for vision-language models."""


def qa(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data set with depth, a folder or file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help=f"{OUT_HELP} Here: FILE.json; pictures and depth go beside it.")
    ],
    data_format: Annotated[DataFormat, typer.Option("--format", help=FORMAT_HELP)] = DataFormat.FOLDER,
    depth_scale: Annotated[float | None, typer.Option("--depth-scale", help=DEPTH_SCALE_HELP)] = None,
    split: Annotated[Split | None, typer.Option("--split", help=SPLIT_HELP)] = None,
    max_frames: Annotated[int | None, typer.Option("--max-frames", min=0, help=FRAMES_HELP)] = None,
    ask_for: Annotated[
        list[QuestionKind] | None, typer.Option("--ask", help="Kind of question; repeatable. Default: all.")
    ] = None,
    distances: Annotated[
        Rounding, typer.Option("--distances", help="How answers state distances.")
    ] = Rounding.CENTIMETRE,
    cells: Annotated[int, typer.Option("--cells", help="Boxes along the shorter side of a picture.")] = 12,
    pairs: Annotated[int, typer.Option("--pairs", help="Pairs of boxes per frame, on average at most.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help=SEED_HELP)] = 0,
) -> None:
    """Write questions about depth, as LLaVA conversations.

    Two boxes are marked in each picture. Questions ask which is nearer (relative; choice in the form of CV-Bench), and
    how far one is (metric). For every two heights in the picture, the lower box is the nearer one in half of them.
    """
    from mvde.datasets.formats import open_dataset
    from mvde.vlm.questions_files import QuestionSettings, write_questions
    from mvde.vlm.questions_sampling import SamplingSettings

    sampling = SamplingSettings(cells=cells, pairs_per_frame=pairs, seed=seed)
    settings = QuestionSettings(tuple(ask_for or QuestionKind), distances, sampling, max_frames or 0)
    dataset = open_dataset(data_format, data, depth_scale, split)
    with _progress("marking") as progress:
        report = write_questions(dataset, out, settings, progress)
    say(f"{out}: {report.num_questions} questions about {report.num_pictures} pictures of {report.num_frames} frames")
    for kind in settings.kinds:
        counts = [f"{report.by_kind_and_cue.get((kind.value, cue), 0)} {cue}" for cue in ("consistent", "counter")]
        say(f"  {kind}: {', '.join(counts)}")


def train(
    model: Annotated[str, typer.Option("--model", metavar="NAME|DIR", help=TRANSFORMERS_HELP)],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Data set with depth, a folder or file. Here: FILE.json of mvde vlm qa."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"{OUT_HELP} A run in it is resumed.")],
    selection: EngineSelection,
    image_folder: Annotated[Path | None, typer.Option("--image-folder", help=IMAGE_FOLDER_HELP)] = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of embedder and adapter.")] = 2000,
    embedder_steps: Annotated[int, typer.Option("--embedder-steps", help="Steps of the embedder alone, first.")] = 200,
    batch_size: Annotated[int, typer.Option("--batch-size", help=_BATCH_HELP)] = 16,
    accumulate: Annotated[int, typer.Option("--accumulate", help="Parts that a step is computed in.")] = 1,
    lr: Annotated[float, typer.Option("--lr", help="Peak learning rate.")] = 2e-4,
    lora_rank: Annotated[int, typer.Option("--lora-rank", help="Rank of the adapter of the language model.")] = 16,
    drop_depth: Annotated[float, typer.Option("--drop-depth", help="Share of examples without depth.")] = 0.15,
    columns: Annotated[
        str, typer.Option("--columns", metavar="NAME,...", help="Columns of the statistics.")
    ] = "mean,var,grad",
    seed: Annotated[int, typer.Option("--seed", help=SEED_HELP)] = 0,
) -> None:
    """Give a vision-language model depth and train it on conversations.

    The depth embedder learns first, then it and an adapter (LoRA) of the language model; nothing else changes. Depth is
    that of the conversations' files, or of the engine of --engine. Writes the adapter and the embedder for `mvde vlm
    ask`, and TensorBoard logs. Ctrl-C saves the state; the same command resumes. Use `accelerate launch -m mvde vlm
    train ...` for several processes.
    """
    from mvde.vlm.conversations import read_conversations
    from mvde.vlm.training import TrainingSettings

    settings = TrainingSettings(
        embedder_steps=embedder_steps, steps=steps, batch_size=batch_size, accumulate=accumulate, lr=lr,
        drop_depth=drop_depth, seed=seed,
    )  # fmt: skip
    if data is None:
        raise UsageError("mvde vlm train needs conversations; give --data FILE.json, as mvde vlm qa writes it")
    conversations = read_conversations(data, image_folder)
    with _needs_torch(), _depth_source(selection) as source:
        from mvde.vlm.training_setup import DepthModelSettings, load_for_training
        from mvde.vlm.training_setup import train as train_model

        chosen = DepthModelSettings(columns=tuple(columns.split(",")), lora_rank=lora_rank, lora_alpha=2.0 * lora_rank)
        loaded, processor = load_for_training(model, source, chosen)
        num_trained = sum(one.numel() for one in loaded.parameters() if one.requires_grad)
        with_depth = sum(one.depth is not None for one in conversations) if source is None else len(conversations)
        say(f"{len(conversations)} conversations, {with_depth} with depth; {num_trained:,} parameters are trained")
        result = train_model(loaded, processor, conversations, out, settings, _report_step)
    if result.interrupted:
        say(f"stopped after step {result.step} of {result.num_steps}; the same command resumes from there")
        raise typer.Exit(130)
    say(f"{out}: {result.num_steps} steps, loss {result.loss:.4f}; ask with: mvde vlm ask --model {out} PHOTO QUESTION")


def evaluate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of questions.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME|DIR", help=TRANSFORMERS_HELP)],
    selection: EngineSelection,
    question_format: Annotated[EvaluationFormat, typer.Option("--format", help=FORMAT_HELP)] = EvaluationFormat.LLAVA,
    image_folder: Annotated[Path | None, typer.Option("--image-folder", help=IMAGE_FOLDER_HELP)] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="NAME|DIR", help=BASE_HELP)] = None,
    max_questions: Annotated[
        int, typer.Option("--max-questions", min=0, help="Number of evenly spaced questions; 0 for all.")
    ] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", help=_BATCH_HELP)] = 8,
    answers: Annotated[
        Path | None, typer.Option("--answers", metavar="FILE", help="Write every answer to this file, as JSON lines.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help=SEED_HELP)] = 0,
    json_path: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)] = None,
) -> None:
    """Evaluate a model with depth on local files of questions, without a judge model.

    Always gives the same questions with depth, with depth removed and with the depth of another picture, and counts
    apart those that height in the picture answers (consistent) and those that it answers wrongly (counter). Distances
    are right within 25 percent. Depth is that of the questions' files, or of the engine of --engine.
    """
    from mvde.vlm.evaluation_formats import read_questions

    questions = read_questions(question_format, files, image_folder)
    if 0 < max_questions < len(questions):
        questions = [questions[at * len(questions) // max_questions] for at in range(max_questions)]
    with _needs_torch(), _depth_source(selection) as source:
        from mvde.vlm.evaluation import evaluate as evaluate_model
        from mvde.vlm.evaluation_assistant import Assistant
        from mvde.vlm.training_setup import load_for_answers

        if source is None and all(one.depth is None for one in questions):
            raise UsageError(
                f"no question of {', '.join(map(str, files))} has a depth file; give an engine that predicts depth: "
                "--engine fp32"
            )
        assistant = Assistant(*load_for_answers(model, source, base))
        with _progress("answering") as progress:
            evaluation = evaluate_model(assistant, questions, batch_size, seed, progress)
    if answers is not None:
        _write_answers(answers, evaluation)
    if json_path is not None:
        write_json(json_path, json.dumps(evaluation.to_dict(), indent=2))
    if json_path != STDOUT:
        _print_evaluation(f"{model}, {question_format}", evaluation)


def ask(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="Picture to ask about.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Question in words.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME|DIR", help=TRANSFORMERS_HELP)],
    selection: EngineSelection,
    camera: CameraOptions,
    base: Annotated[str | None, typer.Option("--base", metavar="NAME|DIR", help=BASE_HELP)] = None,
    depth_file: Annotated[
        Path | None,
        typer.Option("--depth-file", help="Depth of the picture: a 16-bit PNG in millimetres, or .npy in metres."),
    ] = None,
    without_depth: Annotated[bool, typer.Option("--without-depth", help="Answer from the picture alone.")] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")] = 64,
) -> None:
    """Ask a model with depth about a picture.

    Depth is that of --depth-file, or of the engine of --engine.
    """
    given = [name for name, value in (("--depth-file", depth_file), ("--engine", selection.engine)) if value]
    if len(given) + without_depth != 1:
        raise UsageError(
            f"mvde vlm ask takes one of --depth-file, --engine and --without-depth, but got "
            f"{', '.join(given + ['--without-depth'] * without_depth) or 'none of them'}"
        )
    with _needs_torch(), _depth_source(selection) as source:
        from mvde.image import read_image
        from mvde.vlm.evaluation_assistant import Assistant
        from mvde.vlm.training_setup import load_for_answers

        assistant = Assistant(*load_for_answers(model, source, base), max_new_tokens=max_tokens)
        image = read_image(photo)
        depths = None if without_depth else [depth_file or _predicted(source, image, camera)]
        (answer,) = assistant.answer([image], [question], depths, [camera.frame_camera])
    say(answer)


def _predicted(source: Any, image: Any, camera: CameraOptions) -> Any:
    """Depth map of a picture, of an engine."""
    result = source.infer(image, camera=None if camera.frame_camera is None else camera.frame_camera(image.shape[:2]))
    return result.depth


@contextlib.contextmanager
def _depth_source(selection: EngineSelection) -> Iterator[Any]:
    """Yield the runtime of the engine that --engine names, ``None`` without it."""
    engine = only(selection.engine, "--engine", "mvde vlm takes one engine")
    if engine is None:
        yield None
        return
    from mvde.cli.autobuild import build_missing
    from mvde.runtime.depth import DepthRuntime

    build_missing(selection)
    resolution = only(selection.resolutions, "--res", "mvde vlm takes one resolution")
    with DepthRuntime.load(
        engine, name=selection.name, resolution=resolution, batch=selection.batch, engine_dir=selection.engine_dir
    ) as runtime:
        yield runtime


@contextlib.contextmanager
def _needs_torch() -> Iterator[None]:
    """Name the extra that installs what a verb imports, if it is missing; silence the progress bars of transformers."""
    try:
        import warnings

        import transformers

        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        yield
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError.for_extra(
            error.name or "transformers", "vlm", "a vision-language model"
        ) from error


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows how many of how many are done, on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console(stderr=True))
    task = bar.add_task("", total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # not earlier: argument errors must print one line only
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if bar.live.is_started:  # stopping an unstarted bar prints an empty line
            bar.stop()


def _report_step(step: int, num_steps: int, values: dict[str, float]) -> None:
    say(
        f"step {step}/{num_steps} loss {values['loss']:.4f} lr {values['lr']:.2e} "
        f"{values['seconds_per_step']:.3f} s/step"
    )


def _write_answers(path: Path, evaluation: Evaluation) -> None:
    from mvde.files import atomic_write

    lines = [
        json.dumps({"condition": str(condition), **outcome.to_dict()}, ensure_ascii=False)
        for condition, tasks in evaluation.scores.items()
        for outcome in tasks["overall"].outcomes
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _print_evaluation(title: str, evaluation: Evaluation) -> None:
    from rich.table import Table

    from mvde.vlm.evaluation_assistant import Condition

    named = {Condition.DEPTH: "given", Condition.REMOVED: "removed", Condition.SHUFFLED: "another's"}
    table = Table(title=title, title_justify="left")
    table.add_column("depth")
    table.add_column("task")
    for name in ("asked", "right", "consistent", "counter", "AbsRel", "unread"):
        table.add_column(name, justify="right")
    for condition, tasks in evaluation.scores.items():
        for task, score in tasks.items():
            shares = (score.accuracy, score.accuracy_of("consistent"), score.accuracy_of("counter"))
            cells = ["–" if share is None else f"{share:.1%}" for share in shares]
            abs_rel = "–" if score.abs_rel is None else f"{score.abs_rel:.3f}"
            table.add_row(named[condition], task, str(len(score.outcomes)), *cells, abs_rel, str(score.num_unread))
        if (combined := evaluation.cvbench(condition)) is not None:
            table.add_row(named[condition], "CV-Bench", "", f"{combined:.1%}", "", "", "", "")
    console().print(table)
