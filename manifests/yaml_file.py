"""Reads a YAML file into a frozen pydantic model. Each mistake is one line with file, key path, value and remedy.

A relative path in a file starts from the file's own folder, one in `--set key.path=value` from the current folder.
A key that occurs twice is an error, and so is a key that the model does not know.

Paths become absolute before validation: a validator sees neither the key path of a value nor whether the file or
`--set` holds it. Which keys hold paths follows from the types of the fields (locations.py).

PyYAML reads YAML 1.1 and drops all but the last of equal keys, so _StrictLoader refuses them. ruamel.yaml refuses them
too, but reads `yes`, 010 and 1e-3 differently, which would change run ids.

Not covered: which keys there are (job.py, suite.py, training.py, gates.py).
"""

import difflib
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.locations import Anchored
from smoothcert.manifests.names import one_line


class Part(BaseModel):
    """A mapping in a file. Its values are checked at construction and do not change."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


_P = TypeVar("_P", bound=Part)
Fields = Mapping[str, FieldInfo]
"""The fields of a model and of its parts, by key path."""


Complete = Callable[[dict[str, Any]], None]
"""Adds the settings to the content of a file that follow from others, before the content is checked."""


def load_file(
    model: type[_P],
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    kind: str,
    complete: Complete = lambda _: None,
) -> _P:
    """Read a file.

    Args:
        model: the model of the file.
        path: a YAML file.
        overrides: `key.path=value` each, the value as YAML. A value replaces the one in the file; later ones win.
        kind: the name of such files in messages, such as `job file`.
        complete: adds settings that follow from others; its RequestErrors are shown with the name of the file.
    Raises:
        RequestError: a line for each mistake, with file, key path, value and remedy.
    """
    path, fields = Path(path), fields_of(model)
    raw = read_yaml(path, kind, list(model.model_fields))
    set_up(raw, path, overrides, fields)
    try:
        complete(raw)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None
    return validate(model, raw, str(path))


def content_of(model: type[_P], overrides: Sequence[str]) -> dict[str, Any]:
    """The content of a file that says only what the overrides say; arguments and errors as for `load_file`."""
    raw: dict[str, Any] = {}
    _override(raw, overrides, fields_of(model))
    return raw


def set_up(raw: dict[str, Any], path: Path, overrides: Sequence[str], fields: Fields) -> None:
    """Make the paths in a file's content absolute, and apply `--set`.

    Args:
        raw: the content; it is changed.
        path: of the file.
        overrides: as for `load_file`.
        fields: of the file, by key path.
    Raises:
        RequestError: an override cannot be read, or YAML reads a path as a number.
    """
    _anchor(raw, path.absolute().parent, fields, str(path))
    _override(raw, overrides, fields)


def _override(raw: dict[str, Any], overrides: Sequence[str], fields: Fields) -> None:
    for override in overrides:
        nested = _parse_override(override, fields)
        _anchor(nested, Path.cwd(), fields, f"--set {override}")
        _put(raw, nested, parents=override.partition("=")[0].count("."))


def from_options(model: type[_P], option: str, settings: Sequence[str]) -> _P:
    """Read `option KEY=VALUE ...` of a command, the values as YAML.

    Raises:
        RequestError: a line for each mistake, with key, value and remedy.
    """
    raw: dict[str, Any] = {}
    for setting in settings:
        raw |= _parse_override(setting, {}, option)
    return validate(model, raw, option)


def validate(model: type[_P], raw: dict[str, Any], where: str) -> _P:
    """The content of a file, or a part of it, as its model.

    Args:
        model: the model.
        raw: the content.
        where: begins each line of an error.
    Raises:
        RequestError: a line for each mistake, with key path, value and remedy.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [mistake.line for mistake in mistakes_in(error, fields_of(model), raw)]
        raise RequestError("\n".join(f"{where}: {line}" for line in lines)) from None


class Mistake(NamedTuple):
    """A mistake in a file: its place, as pydantic names it, and a line with key path, value and remedy."""

    place: tuple[int | str, ...]
    line: str


def mistakes_in(error: ValidationError, fields: Fields, raw: dict[str, Any]) -> list[Mistake]:
    """The mistakes for which a model refuses the content of a file.

    Args:
        error: the refusal.
        fields: of the file, by key path; a wrong key is answered with the nearest of them.
        raw: the content.
    """
    return [Mistake(_without_tags(mistake["loc"], raw), _describe(mistake, fields, raw)) for mistake in error.errors()]


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key that occurs twice; PyYAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {sorted(twice)[0]!r} comes twice; keep one", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        raise RequestError(f"{where}: not valid YAML: {one_line(error)}") from None


def read_yaml(path: Path, kind: str, keys: Sequence[str]) -> dict[str, Any]:
    """The content of a file.

    Args:
        path: a YAML file.
        kind: the name of such files in messages.
        keys: two of its keys, as an example.
    Raises:
        RequestError: it cannot be read, or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise RequestError(f"{path}: cannot read the {kind}: {reason}; name a YAML file") from None
    raw = _parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise RequestError(f"{path}: a {kind} is a mapping of keys such as `{keys[0]}:` and `{keys[1]}:`")
    return raw


def _parse_override(override: str, fields: Fields, option: str = "--set") -> dict[str, Any]:
    """Turn `a.b=value` into {"a": {"b": value}}; a path is taken as it stands, not as YAML."""
    key_path, equals, text = override.partition("=")
    if not equals or not key_path or "" in key_path.split("."):
        example = "ablation.stride=4" if option == "--set" else "anonymous=true"
        raise RequestError(f"{option} {override}: expected key.path=value, such as {example}")
    mark = _mark_of(fields[key_path]) if key_path in fields else None
    value: Any = text
    if mark is None or not _is_plain_path(text, may_be_list=mark.may_be_list):
        value = _parse_yaml(text, f"{option} {override}")
    for key in reversed(key_path.split(".")):
        value = {key: value}
    return dict(value)


def _is_plain_path(text: str, *, may_be_list: bool) -> bool:
    """Whether the value of `--set` is a path as it stands, not YAML: a file has that name, or the text is neither
    quoted, a list, null nor empty.
    """
    yaml_path = r"""\s*(?:".*"|'.*'|null|~|)\s*""" + (r"|\s*\[.*\]\s*" if may_be_list else "")
    return os.path.lexists(text) or not re.fullmatch(yaml_path, text, re.DOTALL)


def _put(into: dict[str, Any], nested: dict[str, Any], *, parents: int) -> None:
    """Replace one value by that of `nested`, a mapping of one key under `parents` parent keys."""
    [(key, value)] = nested.items()
    if parents and isinstance(into.get(key), dict):
        into[key] = dict(into[key])  # by YAML's aliases, another key may hold the same mapping
        _put(into[key], value, parents=parents - 1)
    else:
        into[key] = value


def _anchor(raw: dict[str, Any], base: Path, fields: Fields, where: str) -> None:
    """Make the relative paths in a mapping absolute.

    Raises:
        RequestError: YAML reads a name as a number, a date or a truth value.
    """
    for key_path, field in fields.items():
        if (mark := _mark_of(field)) is None:
            continue
        *parents, key = key_path.split(".")
        part: Any = raw
        for parent in parents:
            part = part.get(parent) if isinstance(part, dict) else None
        if isinstance(part, dict) and key in part:
            try:
                part[key] = mark.anchor(part[key], base)
            except ValueError as error:
                raise RequestError(f"{where}: {key_path}: {error}") from None


def _mark_of(field: FieldInfo) -> Anchored | None:
    return next((mark for mark in field.metadata if isinstance(mark, Anchored)), None)


def _describe(mistake: ErrorDetails, fields: Fields, raw: dict[str, Any]) -> str:
    """One line: key path, value, remedy."""
    loc, kind = _without_tags(mistake["loc"], raw), mistake["type"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _describe_tag(mistake, loc, fields, raw)
    keys = [key for key in loc if isinstance(key, str)]  # the others are positions in lists
    # pydantic appends the branch of a union ("str", "tuple[str, ...]"), which is no key of the file.
    while len(keys) > 1 and ".".join(keys) not in fields and kind != "extra_forbidden":
        keys.pop()
    path, shown = ".".join(keys), _shown(raw, loc, len(keys))
    if kind == "extra_forbidden" and path in fields:
        return f"{shown}: not a key of this kind; remove it"
    if kind == "extra_forbidden":
        return f"{shown}: unknown key; {_suggest(path, fields)}"
    if kind == "missing":
        return _missing(shown, path, fields)
    message = mistake["msg"].removeprefix("Value error, ")
    if not path:
        return message
    found = "" if isinstance(mistake["input"], dict) else f"{mistake['input']!r} "  # a mapping would fill the line
    return f"{shown}: {found}{message.replace('Input should be', 'should be')}"


def _missing(shown: str, path: str, fields: Fields) -> str:
    purpose = (fields[path].description if path in fields else None) or "required"
    return f"{shown}: missing; add it ({' '.join(purpose.split()).rstrip('.')})"


def _without_tags(loc: tuple[int | str, ...], raw: Any) -> tuple[int | str, ...]:
    """A place without the values that chose a part by its `kind`: pydantic has ablation.mask.threat."""
    kept: list[int | str] = []
    for place, key in enumerate(loc):
        if isinstance(raw, dict) and raw.get("kind") == key and key not in raw and place + 1 < len(loc):
            continue
        kept.append(key)
        if isinstance(raw, dict) and isinstance(key, int):
            continue  # a mapping in place of a list of one
        if isinstance(raw, list) and isinstance(key, int):
            raw = raw[key]
        else:
            raw = raw.get(key) if isinstance(raw, dict) else None
    return tuple(kept)


def _describe_tag(mistake: ErrorDetails, loc: tuple[int | str, ...], fields: Fields, raw: dict[str, Any]) -> str:
    """One line about a key such as `kind`, on which the other keys depend."""
    context = mistake.get("ctx", {})
    key = context["discriminator"].strip("'")
    shown = f"{_shown(raw, loc, len(loc))}.{key}"
    if mistake["type"] == "union_tag_not_found":
        return _missing(shown, ".".join(part for part in (*loc, key) if isinstance(part, str)), fields)
    *others, last = context["expected_tags"].split(", ")
    return f"{shown}: {context['tag']!r} should be {', '.join(others)} or {last}"


def _shown(raw: Any, loc: tuple[int | str, ...], keys: int) -> str:
    """The first keys of a place, with the positions of mappings in lists of several: `gates[1].patch`."""
    shown = ""
    for place, key in enumerate(loc):
        if isinstance(key, str):
            if not keys:
                break
            shown += f".{key}"
            keys -= 1
            raw = raw.get(key) if isinstance(raw, dict) else None
        elif isinstance(raw, list):
            of_a_mapping = isinstance(raw[key], dict) and (keys or place + 1 == len(loc))
            shown += f"[{key}]" if of_a_mapping and len(raw) > 1 else ""
            raw = raw[key]
    return shown.removeprefix(".")


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model and of its parts, by key path."""
    return dict(_fields_of(model))


def _fields_of(part: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for field_name, field in part.model_fields.items():
        name = field.alias or field_name
        yield prefix + name, field
        for inner in _types_in(field.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _fields_of(inner, f"{prefix}{name}.")


def _types_in(annotation: Any) -> Iterator[Any]:
    """A type and all types in it, such as the parts in `tuple[Part, ...] | None`."""
    yield annotation
    for inner in typing.get_args(annotation):
        yield from _types_in(inner)


def _suggest(path: str, fields: Fields) -> str:
    """The known key that is most likely meant, or all known keys."""
    parent, _, name = path.rpartition(".")
    names = [key.rpartition(".")[2] for key in fields if key.rpartition(".")[0] == parent]
    elsewhere = [key for key in fields if key.rpartition(".")[2] == name]
    close = [f"{parent}.{near}".lstrip(".") for near in difflib.get_close_matches(name, names, n=1, cutoff=0.5)]
    if near := elsewhere or close:
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(names)}"
