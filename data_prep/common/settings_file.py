"""Settings of a command: a class holds the defaults, a YAML file and ``--set name=value`` change them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from contextrl_verl.errors import ConfigError

Settings = TypeVar("Settings")


def load_settings(cls: type[Settings], config: Path | None, sets: list[str], **given: Any) -> Settings:
    """An instance of ``cls`` with the values of ``config``, over them those of ``sets``, over them those of ``given``.

    Args:
        cls: frozen dataclass or pydantic model; its fields may be such classes again.
        config: YAML file of nested mappings, or None.
        sets: ``name=value`` each, as given with ``--set``; a dot leads into a nested class or a mapping. A value that
            begins with ``[`` or ``{`` is YAML, and ``null`` is None.
        given: what the command's own options say, by name; None where they say nothing.

    Raises:
        ConfigError: no such name, a name twice in ``sets``, a value that pydantic refuses, a file that is no mapping.
    """
    known = {name: kind for name, kind in _names(cls)}
    values: dict[str, Any] = {}
    for origin, found in (
        (f"--config {config}", _flat(_read(config), known) if config else {}),
        ("--set", _pairs(sets)),
        ("", {name: value for name, value in given.items() if value is not None}),
    ):
        for name in found:
            if name not in known and not any(_is_mapping(known.get(name[:at])) for at in _dots(name)):
                raise ConfigError(f"{origin} names {name!r}, and there is no such setting. Fix: {', '.join(known)}.")
        values |= found
    nested: dict[str, Any] = {}
    for name, value in values.items():
        place = nested
        *path, last = name.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    try:
        return TypeAdapter(cls).validate_python(nested)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    raise ConfigError(*(_told(problem) for problem in problems))


def _told(problem: Any) -> str:
    name, message = ".".join(map(str, problem["loc"])), problem["msg"]
    if problem["type"] == "value_error":  # raised by the class itself, which says everything
        return str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return f"{name} is not set. Fix: --set {name}=VALUE, or {name} in --config."
    return f"{name} is {problem['input']!r}. Fix: {message[:1].lower()}{message[1:]}."


def _names(cls: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of all settings that are no class of settings themselves, and their types."""
    names = cls.model_fields if issubclass(cls, BaseModel) else [field.name for field in fields(cls) if field.init]
    kinds = get_type_hints(cls)
    for name in names:
        inner = next((kind for kind in (kinds[name], *get_args(kinds[name])) if _is_settings(kind)), None)
        if inner is None:
            yield above + name, kinds[name]
        else:
            yield from _names(inner, f"{above}{name}.")


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, BaseModel))


def _is_mapping(kind: Any) -> bool:
    return kind is not None and any(getattr(one, "__origin__", one) is dict for one in (kind, *get_args(kind)))


def _dots(name: str) -> list[int]:
    return [at for at, letter in enumerate(name) if letter == "."]


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is no YAML file: {error}. Fix: lines of name: value.") from None
    if not isinstance(found or {}, dict):
        raise ConfigError(f"--config {path} holds {type(found).__name__}. Fix: lines of name: value.")
    return found or {}


def _flat(values: Mapping[Any, Any], known: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{above}{key}"
        inside = isinstance(value, dict) and any(one.startswith(f"{name}.") for one in known)
        flat |= _flat(value, known, f"{name}.") if inside else {name: value}
    return flat


def _pairs(sets: list[str]) -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = {}
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {item!r} names no value. Fix: --set name=value.")
        if name in values:
            raise ConfigError(f"--set gives {name} twice, {values[name]!r} and {text!r}. Fix: give it once.")
        try:
            values[name] = yaml.safe_load(text) if text[:1] in ("[", "{") or text == "null" else text
        except yaml.YAMLError:
            raise ConfigError(f"--set {item!r} is no YAML behind the =. Fix: e.g. --set {name}='[1, 2]'.") from None
    return values
