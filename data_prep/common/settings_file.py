"""Settings of a command: a class holds the defaults, a YAML file and ``--set name=value`` change them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from contextrl_verl.errors import ConfigError

Settings = TypeVar("Settings")


def load_settings(
    cls: type[Settings], config: Path | None, sets: list[str], *, option: str = "--set", **given: Any
) -> Settings:
    """An instance of ``cls`` with the values of ``config``, over them those of ``sets``, over them those of ``given``.

    Args:
        cls: frozen dataclass or pydantic model; its fields may be such classes again.
        config: YAML file of nested mappings, or None.
        sets: ``name=value`` each, as given with ``--set``; a dot leads into a nested class or a mapping. A value that
            begins with ``[`` or ``{`` is YAML, and ``null`` is None.
        option: that ``sets`` come from, for messages.
        given: what the command's own options say, by name; None where they say nothing.

    Raises:
        ConfigError: no such name, a name twice in ``sets``, a value that pydantic refuses, a file that is no mapping.
    """
    values, pairs = _read(config) if config else {}, _pairs(sets, option)
    found = [(f"--config {config}", values), *((option, _put({}, name, value)) for name, value in pairs.items())]
    names = list(_names(cls))
    for origin, name in ((origin, name) for origin, part in found for name in _unknown(part, names)):
        raise ConfigError(f"{origin} names {name!r}, and there is no such setting. Fix: {', '.join(names)}.")
    for name, value in pairs.items():
        _put(values, name, value)
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise ConfigError(*(_told(problem, option) for problem in error.errors(include_url=False))) from None


def _told(problem: Any, option: str) -> str:
    name, message = ".".join(map(str, problem["loc"])), problem["msg"]
    if problem["type"] == "value_error":  # raised by the class itself, which says everything
        return str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return f"{name} is not set. Fix: {option} {name}=VALUE."
    place = name if option == "--set" else f"{option} {name}"
    return f"{place} is {problem['input']!r}. Fix: {message[:1].lower()}{message[1:]}."


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, BaseModel))


def _names(cls: Any, above: str = "") -> Iterator[str]:
    """Dotted names of all settings that are no class of settings themselves."""
    hints = get_type_hints(cls)
    for name in cls.model_fields if issubclass(cls, BaseModel) else [one.name for one in fields(cls) if one.init]:
        inner = next(filter(_is_settings, (hints[name], *get_args(hints[name]))), None)
        yield from _names(inner, f"{above}{name}.") if inner else [above + name]


def _unknown(values: dict[Any, Any], names: list[str], above: str = "") -> Iterator[str]:
    """Dotted names of values that are no settings, or no mapping where there are further settings below."""
    for name, value in values.items():
        full = f"{above}{name}"
        if isinstance(value, dict) and any(known.startswith(f"{full}.") for known in names):
            yield from _unknown(value, names, f"{full}.")
        elif full not in names:
            yield full


def _put(values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Set what a dotted name leads to, and return the values."""
    place = values
    *path, last = name.split(".")
    for part in path:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[last] = value
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is no YAML file: {error}. Fix: lines of name: value.") from None
    if not isinstance(found, dict):
        raise ConfigError(f"--config {path} holds {type(found).__name__}. Fix: lines of name: value.")
    return found


def _pairs(sets: list[str], option: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {item!r} names no value. Fix: {option} name=value.")
        if name in values:
            raise ConfigError(f"{option} gives {name} twice, {values[name]!r} and {text!r}. Fix: give it once.")
        try:
            values[name] = yaml.safe_load(text) if text[:1] in ("[", "{") or text == "null" else text
        except yaml.YAMLError:
            raise ConfigError(f"{option} {item!r} is no YAML behind the =. Fix: e.g. {name}='[1, 2]'.") from None
    return values
