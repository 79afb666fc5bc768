"""Options across verbs: their number per verb, and one meaning per name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer

from mvde.cli import choices, shared_options
from mvde.cli.floor_options import FloorOptions
from mvde.cli.groups import groups_of, names_of, option_of
from mvde.cli.live_options import LiveOptions
from mvde.cli.stats import BulkInputOptions
from mvde.cli.verbs import VERBS as ALL_VERBS
from mvde.cli.verbs import application
from mvde.precision import LOWERED, Precision

MOST_OPTIONS = 14
"""Per verb; a shared group counts as one."""

SHARED_GROUPS = [
    shared_options.GraphSelection,
    shared_options.EngineSelection,
    shared_options.DataOptions,
    shared_options.CameraOptions,
    shared_options.FilmedDataOptions,
    shared_options.QuantizationOptions,
    shared_options.PixelOptions,
    shared_options.MeaningOptions,
    LiveOptions,
    FloorOptions,
    BulkInputOptions,
]


def verbs(app: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and function of every registered verb."""
    for command in app.registered_commands:
        yield f"{prefix}{command.name}", command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from verbs(group.typer_instance, f"{prefix}{group.name} ")


VERBS = dict(verbs(application(ALL_VERBS)))


def options(verb: Any) -> list[inspect.Parameter]:
    """Options of a verb, without its arguments."""
    parameters = inspect.signature(verb, eval_str=True).parameters.values()
    return [parameter for parameter in parameters if names_of(parameter)]


def number_of_options(verb: Any) -> int:
    """Number of options; a shared group counts as one, while a verb's own groups are expanded."""
    shared = [
        fields
        for fields in groups_of(verb).values()
        if any(fields == tuple(group.__dataclass_fields__) for group in SHARED_GROUPS)
    ]
    return len(options(verb)) - sum(len(fields) - 1 for fields in shared)


def test_every_verb_is_there() -> None:
    assert {name.split()[0] for name in VERBS} == set(ALL_VERBS)
    assert set(VERBS) == {
        "models", "export", "import", "lower", "build", "prove", "triton", "run", "view", "bench", "eval",
        "calibrate scale", "train", "data synth", "data pack", "data index", "vlm qa", "vlm train", "vlm eval",
        "vlm ask", "info", "doctor", "stats",
    }  # fmt: skip


@pytest.mark.parametrize("name", VERBS)
def test_no_verb_has_more_options_than_one_can_read(name: str) -> None:
    assert number_of_options(VERBS[name]) <= MOST_OPTIONS


def test_every_shared_group_belongs_to_a_verb_and_explains_its_fields() -> None:
    taken = {fields for verb in VERBS.values() for fields in groups_of(verb).values()}
    for group in SHARED_GROUPS:
        assert tuple(group.__dataclass_fields__) in taken
        assert group.__doc__
        assert not group.__doc__.startswith(f"{group.__name__}(")  # the default docstring of a dataclass


OWN_CHOICES = ("--format",)
"""Options that mean the same in every verb, of which each verb has choices of its own."""


def meaning(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """What all options of a name must share; last, the first sentence of the help."""
    option = option_of(parameter.annotation)
    assert option is not None
    assert option.help
    kind, repeatable = _kind(get_args(parameter.annotation)[0])
    kind = "a choice" if names_of(parameter)[0] in OWN_CHOICES else kind
    stem = option.help.split(". ")[0].rstrip(".")
    return names_of(parameter), kind, repeatable, option.min, option.metavar, stem


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Type of a value, and whether the option is repeatable; ``None`` is only a default."""
    inner = [part for part in get_args(annotation) if part is not type(None)] or [annotation]
    if getattr(inner[0], "__origin__", None) is list or getattr(annotation, "__origin__", None) is list:
        listed = annotation if getattr(annotation, "__origin__", None) is list else inner[0]
        return get_args(listed)[0], True
    return inner[0], False


def test_one_name_means_one_thing_in_every_verb() -> None:
    meanings: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for name, verb in VERBS.items():
        for parameter in options(verb):
            for spelled in names_of(parameter):
                meanings.setdefault(spelled, {}).setdefault(meaning(parameter), []).append(name)
    assert {spelled: found for spelled, found in meanings.items() if len(found) > 1} == {}
    assert {"--camera", "--fov", "--calibration", "--frame", "--quantization-images", "--no-build", "--set"} <= set(
        meanings
    )


def test_a_difference_of_meaning_is_noticed() -> None:
    def one(res: Any = None) -> None: ...
    def other(res: Any = None) -> None: ...

    from typing import Annotated

    one.__annotations__ = {"res": Annotated[list[str] | None, typer.Option("--res", help="Size. One.")]}
    other.__annotations__ = {"res": Annotated[str | None, typer.Option("--res", help="Size. Another.")]}
    first, second = (meaning(options(verb)[0]) for verb in (one, other))
    assert first != second
    assert first[-1] == second[-1] == "Size"


def test_choices_that_are_a_part_of_a_type_are_the_whole_of_that_part() -> None:
    assert tuple(choice.precision for choice in choices.LoweredTo) == LOWERED
    floats = [precision for precision in Precision if not precision.is_quantized]
    assert [rest.precision for rest in choices.Rest] == floats


@pytest.mark.parametrize("name", VERBS)
def test_every_choice_is_its_text(name: str) -> None:
    from enum import Enum

    for parameter in options(VERBS[name]):
        kind, _ = _kind(get_args(parameter.annotation)[0])
        if isinstance(kind, type) and issubclass(kind, Enum):
            assert [str(choice) for choice in kind] == [choice.value for choice in kind]
            assert issubclass(kind, str)
