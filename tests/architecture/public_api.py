"""Writes down the public API: every name in `lane_obs.__all__` with its signature, public methods included.

python -m tests.architecture.public_api    # rewrites tests/architecture/public_api.txt
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, is_typeddict

import lane_obs
from docs.generate import described

if TYPE_CHECKING:
    from collections.abc import Iterator

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def render() -> str:
    """The whole API as text, one line a name."""
    return "\n".join(line for name in sorted(lane_obs.__all__) for line in _lines(name, getattr(lane_obs, name))) + "\n"


def _lines(name: str, thing: Any) -> Iterator[str]:
    if inspect.isclass(thing):
        yield from _class_lines(name, thing)
    elif callable(thing):
        yield f"{_prefix(thing)}{name}{_signature(thing)}"
    else:
        yield f"{name}: {type(thing).__name__}"


def _class_lines(name: str, kind: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
    yield f"class {name}({bases})" if bases else f"class {name}"
    if issubclass(kind, enum.Enum):
        yield from (f"    {item.name} = {str(item)!r}" for item in kind)
        return
    if is_typeddict(kind):
        yield from (f"    {key}: {value.__forward_arg__}" for key, value in kind.__annotations__.items())
        return
    if _has_own_constructor(kind):
        yield f"    __init__{_signature(kind)}"
    for member_name in sorted(dir(kind)):
        if not member_name.startswith("_"):
            yield from _member_lines(kind, member_name)


def _has_own_constructor(kind: type) -> bool:
    if getattr(kind, "_is_protocol", False):
        return False
    return dataclasses.is_dataclass(kind) or any("__init__" in vars(base) for base in _ours(kind))


def _ours(kind: type) -> Iterator[type]:
    return (base for base in kind.__mro__ if base.__module__.startswith("lane_obs"))


def _member_lines(kind: type, name: str) -> Iterator[str]:
    home = next((base for base in _ours(kind) if name in vars(base)), None)
    if home is None or (home.__module__.startswith("lane_obs.core") and name not in _promised(kind)):
        return  # not ours, or a part of the inside
    member = vars(home)[name]
    if isinstance(member, property):
        yield f"    {name} -> {_annotation(inspect.signature(member.fget).return_annotation)}"  # type: ignore[arg-type]
    elif isinstance(member, classmethod | staticmethod):
        yield f"    {type(member).__name__} {name}{_signature(getattr(kind, name))}"
    elif inspect.isroutine(member):
        yield f"    {_prefix(member)}{name}{_signature(member)}"
    elif inspect.ismemberdescriptor(member):
        yield f"    {name}: {_annotation(home.__annotations__[name])}"
    else:
        yield f"    {name}: {type(member).__name__}"


def _promised(kind: type) -> set[str]:
    """The attributes that a class's docstring names."""
    return {name for names, _ in described(kind, "Attributes") for name in names.split(", ")}


def _prefix(function: Any) -> str:
    return "async " if inspect.iscoroutinefunction(function) else ""


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    words, kinds, before = [], inspect.Parameter, None
    for parameter in signature.parameters.values():
        if before is kinds.POSITIONAL_ONLY and parameter.kind is not before:
            words.append("/")
        if parameter.kind is kinds.KEYWORD_ONLY and before not in {kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL}:
            words.append("*")
        star = "*" if parameter.kind is kinds.VAR_POSITIONAL else "**" if parameter.kind is kinds.VAR_KEYWORD else ""
        kind = "" if parameter.annotation is kinds.empty else f": {_annotation(parameter.annotation)}"
        default = "" if parameter.default is kinds.empty else f" = {_default(parameter.default)}"
        words.append(f"{star}{parameter.name}{kind}{default}")
        before = parameter.kind
    returns = signature.return_annotation
    end = "" if returns is signature.empty or inspect.isclass(function) else f" -> {_annotation(returns)}"
    return f"({', '.join(words)}){end}"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: object) -> str:
    return repr(str(value)) if isinstance(value, enum.StrEnum) else repr(value).partition(" at 0x")[0]


if __name__ == "__main__":
    SNAPSHOT.write_text(render(), "utf-8")
