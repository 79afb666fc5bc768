"""Groups of options: a frozen dataclass written once, whose fields are options of every verb that takes one.

typer reads a verb's signature and would make one positional argument of a dataclass, without an error. The verb is
therefore registered as ``app.command("run")(with_groups(run))``: typer sees the fields in the group's place, and the
verb gets the instance.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

from mvde.errors import MvdeError, UsageError

Result = TypeVar("Result")

_FIELDS_BY_GROUP = "fields_by_group"


def with_groups(verb: Callable[..., Result]) -> Callable[..., Result]:
    """The verb with the fields of its groups in the groups' place, for typer to register.

    A group is a parameter annotated with a frozen dataclass, each field of which is an option:
    ``Annotated[type, typer.Option("--name", help=...)]`` with a default. ``tuple[X, ...]`` is an option that may be
    repeated. What a group's ``__post_init__`` refuses is a :class:`UsageError`.

    Raises TypeError for a group that is none, and for two options of one name.
    """
    hints = get_type_hints(verb, include_extras=True)
    parameters = inspect.signature(verb).parameters
    groups = {name: hints[name] for name in parameters if dataclasses.is_dataclass(hints[name])}
    expanded: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        if name in groups:
            expanded += _parameters_of(groups[name])
        else:
            annotation = hints[name]
            expanded.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))
    _check_distinct(verb.__name__, expanded)
    fields_by_group = {name: tuple(field.name for field in dataclasses.fields(group)) for name, group in groups.items()}

    def call(**values: Any) -> Result:
        for name, group in groups.items():
            values[name] = _assembled(group, {field: values.pop(field) for field in fields_by_group[name]})
        return verb(**values)

    call.__name__, call.__qualname__, call.__module__ = verb.__name__, verb.__qualname__, verb.__module__
    call.__doc__ = verb.__doc__
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in expanded}
    call.__signature__ = inspect.Signature(expanded)  # type: ignore[attr-defined]  # what inspect reads first
    setattr(call, _FIELDS_BY_GROUP, fields_by_group)
    return call


def groups_of(verb: Callable[..., Any]) -> Mapping[str, tuple[str, ...]]:
    """Fields by group of a verb that :func:`with_groups` made; empty for one without groups."""
    found: Mapping[str, tuple[str, ...]] = getattr(verb, _FIELDS_BY_GROUP, {})
    return found


def option_of(annotation: Any) -> OptionInfo | None:
    """What typer is told of an option, out of its ``Annotated``; ``None`` for an argument."""
    return next((told for told in getattr(annotation, "__metadata__", ()) if isinstance(told, OptionInfo)), None)


def names_of(parameter: inspect.Parameter) -> tuple[str, ...]:
    """What an option is called on the command line, such as ``("--engine", "-e")``; empty for an argument."""
    option = option_of(parameter.annotation)
    if option is None:
        return ()
    # In ``Annotated`` the first name is what typer calls the default.
    declared = (option.default, *(option.param_decls or ()))
    names = tuple(name for text in declared if isinstance(text, str) for name in text.split("/"))
    return names or (f"--{parameter.name.replace('_', '-')}",)


def _parameters_of(group: type) -> Iterator[inspect.Parameter]:
    """A keyword per field, as typer reads it: repeatable options are lists there."""
    if not group.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # typeshed does not know it
        raise TypeError(f"{group.__name__} is a group of options and must be a frozen dataclass")
    hints = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        annotation, default = hints[field.name], field.default
        if option_of(annotation) is None or default is dataclasses.MISSING:
            raise TypeError(
                f"{group.__name__}.{field.name} must be an option, Annotated[type, typer.Option(...)], with a default"
            )
        if (item := _repeated(annotation)) is not None:
            annotation = _annotated_as(list[item] | None, annotation)  # type: ignore[valid-type]  # typer's words
            default = list(default) or None
        yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _repeated(annotation: Any) -> Any:
    """``X`` of ``Annotated[tuple[X, ...], ...]``; ``None`` for any other type."""
    kind = get_args(annotation)[0]
    items = get_args(kind)
    return items[0] if get_origin(kind) is tuple and items[1:] == (Ellipsis,) else None


def _annotated_as(kind: Any, annotation: Any) -> Any:
    from typing import Annotated

    return Annotated[(kind, *annotation.__metadata__)]


def _check_distinct(verb: str, parameters: list[inspect.Parameter]) -> None:
    """Raise TypeError where two options or parameters of a verb have one name."""
    taken: dict[str, str] = {}
    for parameter in parameters:
        for name in {parameter.name, *names_of(parameter)}:
            if name in taken:
                raise TypeError(f"{verb} has {name} twice: of the parameters {taken[name]} and {parameter.name}")
            taken[name] = parameter.name


def _assembled(group: type, values: dict[str, Any]) -> Any:
    """The instance; a field that may be repeated is a tuple again."""
    hints = get_type_hints(group, include_extras=True)
    given = {name: tuple(value or ()) if _repeated(hints[name]) else value for name, value in values.items()}
    try:
        return group(**given)
    except MvdeError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
