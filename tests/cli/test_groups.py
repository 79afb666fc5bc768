"""Option groups: typer commands with frozen dataclasses as parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from mvde import cli
from mvde.cli.groups import groups_of, names_of, with_groups
from mvde.errors import UsageError


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Paint:
    """Paint, by its colour and its layers."""

    colour: Annotated[Colour, typer.Option("--colour", help="Its colour.")] = Colour.RED
    layer: Annotated[tuple[int, ...], typer.Option("--layer", "-l", help="Thickness; repeatable.")] = ()
    tin: Annotated[Path | None, typer.Option("--tin", help="Where it is.")] = None

    def __post_init__(self) -> None:
        if len(self.layer) > 3:
            raise UsageError(f"got {len(self.layer)} layers; expected 3 at most")
        if sum(self.layer) > 100:
            raise ValueError("that much paint drips")


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Paint, str, bool]]:
    """Calls of the application's only verb."""
    calls: list[tuple[Paint, str, bool]] = []

    def paint(
        wall: Annotated[str, typer.Argument(help="The wall.")],
        what: Paint,
        dry: Annotated[bool, typer.Option("--dry", help="Touch nothing.")] = False,
    ) -> None:
        """Paint a wall."""
        calls.append((what, wall, dry))

    monkeypatch.setattr(cli, "command_line", lambda: typer.main.get_command(application(paint)))
    return calls


def application(verb: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.callback()(lambda: None)
    app.command("paint")(with_groups(verb))
    return app


def test_the_verb_gets_an_instance(painted: list[tuple[Paint, str, bool]]) -> None:
    assert (
        cli.execute(["paint", "north", "--colour", "blue", "--layer", "2", "-l", "3", "--tin", "shelf", "--dry"]) == 0
    )
    assert cli.execute(["paint", "south"]) == 0
    assert painted == [(Paint(Colour.BLUE, (2, 3), Path("shelf")), "north", True), (Paint(), "south", False)]
    assert type(painted[0][0].colour) is Colour


def test_help_shows_the_options_of_the_group_with_their_defaults_and_choices(
    painted: list[tuple[Paint, str, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.execute(["paint", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Paint a wall." in shown
    assert "red|blue" in shown
    assert "default: red" in shown
    assert "-l, --layer" in shown
    assert "Thickness; repeatable. [default" not in shown
    assert "--dry" in shown
    assert "what" not in shown.lower().replace("what is", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--colour", "green"], "'green' is not one of 'red', 'blue'"),
        (["--layer", "thick"], "Invalid value for '--layer'"),
        (["-l", "1"] * 2 + ["-l", "2"] * 2, "got 4 layers; expected 3 at most"),
        (["--layer", "101"], "that much paint drips"),
    ],
)
def test_what_a_group_refuses_is_one_line_and_two(
    painted: list[tuple[Paint, str, bool]], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.execute(["paint", "north", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert painted == []


def test_two_options_of_one_name_are_refused_when_the_verb_is_registered() -> None:
    @dataclass(frozen=True)
    class Tools:
        """Tools."""

        brush: Annotated[str, typer.Option("--colour", help="Of the brush.")] = ""

    def twice(paint: Paint, tools: Tools) -> None: ...

    def beside(paint: Paint, tin: Annotated[str, typer.Option("--other", help="Another.")] = "") -> None: ...

    twice.__annotations__ = {"paint": Paint, "tools": Tools}
    with pytest.raises(TypeError, match="twice has --colour twice: in the parameters colour and brush"):
        with_groups(twice)
    with pytest.raises(TypeError, match="beside has tin twice"):
        with_groups(beside)


def test_what_is_no_group_is_refused_when_the_verb_is_registered() -> None:
    @dataclass
    class Thawed:
        """Not frozen."""

        one: Annotated[int, typer.Option("--one", help="One.")] = 1

    @dataclass(frozen=True)
    class Bare:
        """A field that is no option."""

        one: int = 1

    @dataclass(frozen=True)
    class Demanding:
        """A field without a default."""

        one: Annotated[int, typer.Option("--one", help="One.")]

    for group, message in (
        (Thawed, "must be a frozen dataclass"),
        (Bare, r"Bare\.one must be an option"),
        (Demanding, r"Demanding\.one must be an option, .* with a default"),
    ):

        def verb(given: Any) -> None: ...

        verb.__annotations__ = {"given": group}
        with pytest.raises(TypeError, match=message):
            with_groups(verb)


def test_a_verb_knows_its_groups_and_its_options() -> None:
    def verb(paint: Paint, dry_run: Annotated[bool, typer.Option(help="No.")] = False) -> None: ...

    import inspect

    made = with_groups(verb)
    assert groups_of(made) == {"paint": ("colour", "layer", "tin")}
    assert groups_of(verb) == {}
    parameters = inspect.signature(made).parameters
    assert [names_of(parameter) for parameter in parameters.values()] == [
        ("--colour",),
        ("--layer", "-l"),
        ("--tin",),
        ("--dry-run",),
    ]
