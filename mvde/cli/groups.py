"""Option groups: frozen dataclasses whose fields become options of every verb that takes one.

typer reads a verb's signature and would silently treat a dataclass as one positional argument. The verb is therefore
registered as ``app.command("run")(with_groups(run))``: typer sees the fields in place of the group, and the verb
receives the instance.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

from mvde.errors import MvdeError, UsageError

Result = TypeVar("Result")

_FIELDS_BY_GROUP = "fields_by_group"


def with_groups(verb: Callable[..., Result]) -> Callable[..., Result]:
    """Wrap a verb for typer, replacing its groups by their fields.

    A group is a parameter annotated with a frozen dataclass, each field of which is an option:
    ``Annotated[type, typer.Option("--name", help=...)]`` with a default. ``tuple[X, ...]`` is a repeatable option.
    Errors from a group's ``__post_init__`` become :class:`UsageError`.

    Raises TypeError for an invalid group and for duplicate option names.
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
    call.__signature__ = inspect.Signature(expanded)  # type: ignore[attr-defined]  # takes precedence in inspect
    setattr(call, _FIELDS_BY_GROUP, fields_by_group)
    return call


def groups_of(verb: Callable[..., Any]) -> Mapping[str, tuple[str, ...]]:
    """Fields by group of a verb wrapped by :func:`with_groups`; empty for one without groups."""
    found: Mapping[str, tuple[str, ...]] = getattr(verb, _FIELDS_BY_GROUP, {})
    return found


def option_of(annotation: Any) -> OptionInfo | None:
    """Option info of typer in an ``Annotated`` type; ``None`` for an argument."""
    return next((told for told in getattr(annotation, "__metadata__", ()) if isinstance(told, OptionInfo)), None)


def names_of(parameter: inspect.Parameter) -> tuple[str, ...]:
    """Option names on the command line, e.g. ``("--engine", "-e")``; empty for an argument."""
    option = option_of(parameter.annotation)
    if option is None:
        return ()
    # In ``Annotated``, typer stores the first name as the default.
    declared = (option.default, *(option.param_decls or ()))
    names = tuple(name for text in declared if isinstance(text, str) for name in text.split("/"))
    return names or (f"--{parameter.name.replace('_', '-')}",)


@cache
def _parameters_of(group: type) -> tuple[inspect.Parameter, ...]:
    """One keyword parameter per field for typer; repeatable options become lists. Made once for all verbs."""
    return tuple(_made_parameters(group))


def _made_parameters(group: type) -> Iterator[inspect.Parameter]:
    if not group.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # missing in typeshed
        raise TypeError(f"{group.__name__} is a group of options and must be a frozen dataclass")
    hints = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        annotation, default = hints[field.name], field.default
        if option_of(annotation) is None or default is dataclasses.MISSING:
            raise TypeError(
                f"{group.__name__}.{field.name} must be an option, Annotated[type, typer.Option(...)], with a default"
            )
        if (item := _repeated(annotation)) is not None:
            annotation = _annotated_as(list[item] | None, annotation)  # type: ignore[valid-type]  # typer needs a list
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
    """Raise TypeError if two options or parameters of a verb share a name."""
    taken: dict[str, str] = {}
    for parameter in parameters:
        for name in {parameter.name, *names_of(parameter)}:
            if name in taken:
                raise TypeError(f"{verb} has {name} twice: in the parameters {taken[name]} and {parameter.name}")
            taken[name] = parameter.name


def _assembled(group: type, values: dict[str, Any]) -> Any:
    """Create the group; values of repeatable options become tuples."""
    hints = get_type_hints(group, include_extras=True)
    given = {name: tuple(value or ()) if _repeated(hints[name]) else value for name, value in values.items()}
    try:
        return group(**given)
    except MvdeError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
