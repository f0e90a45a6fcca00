"""A YAML file to a frozen pydantic model, each mistake one line with file, key path, value and remedy.

A relative path in a file starts from the file's own folder, one in `--set key.path=value` from the current
directory. A key that comes twice is an error, as is one that the model does not know.

Not covered: which keys there are (job.py, training.py).
"""

import difflib
import os
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from smoothcert.manifests.errors import RequestError

HUB_NAMES = ("hf-hub:", "timm:")
"""What a checkpoint begins with that the Hugging Face Hub has."""


_URL = re.compile(r"[a-z][a-z\d+.-]*://", re.IGNORECASE)


class Part(BaseModel):
    """A mapping in a file: what it holds has been checked, and does not change."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


_P = TypeVar("_P", bound=Part)


def load_file(
    model: type[_P], path: str | Path, overrides: Sequence[str] = (), *, paths: Sequence[str], kind: str
) -> _P:
    """Read a file.

    Args:
        model: what it holds.
        path: a YAML file.
        overrides: `key.path=value` each, the value as YAML; it replaces what is there, and later ones win.
        paths: the key paths that hold paths or URLs.
        kind: what the file is called in messages, such as `job file`.
    Raises:
        RequestError: a line for each mistake, with file, key path, value and remedy.
    """
    path = Path(path)
    raw = _anchor_paths(_read_yaml(path, kind), path.absolute().parent, paths, str(path))
    for override in overrides:
        nested = _anchor_paths(_parse_override(override, paths), Path.cwd(), paths, f"--set {override}")
        _put(raw, nested, parents=override.partition("=")[0].count("."))
    return _validated(model, raw, str(path))


def from_options(model: type[_P], option: str, settings: Sequence[str]) -> _P:
    """What `option KEY=VALUE ...` of a command says, the values as YAML.

    Raises:
        RequestError: a line for each mistake, with key, value and remedy.
    """
    raw: dict[str, Any] = {}
    for setting in settings:
        raw |= _parse_override(setting, (), option)
    return _validated(model, raw, option)


def _validated(model: type[_P], raw: dict[str, Any], where: str) -> _P:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise RequestError("\n".join(f"{where}: {line}" for line in _describe(error, model))) from None


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error instead of a silent loss."""

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
        raise RequestError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _read_yaml(path: Path, kind: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise RequestError(f"{path}: cannot read the {kind}: {reason}; name a YAML file") from None
    raw = _parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise RequestError(f"{path}: a {kind} is a mapping of keys such as `name:` and `images:`")
    return raw


def _parse_override(override: str, paths: Sequence[str], option: str = "--set") -> dict[str, Any]:
    key_path, equals, text = override.partition("=")
    if not equals or not key_path or "" in key_path.split("."):
        example = "ablation.stride=4" if option == "--set" else "anonymous=true"
        raise RequestError(f"{option} {override}: expected key.path=value, such as {example}")
    value: Any = text
    if key_path not in paths or not _is_plain_path(text, may_be_list=key_path.endswith("shards")):
        value = _parse_yaml(text, f"{option} {override}")
    for key in reversed(key_path.split(".")):
        value = {key: value}
    return dict(value)


def _is_plain_path(text: str, *, may_be_list: bool) -> bool:
    """Whether a path in `--set` is the text as it stands: not one in quotes, a list, null or nothing."""
    yaml_path = r"""\s*(?:".*"|'.*'|null|~|)\s*""" + (r"|\s*\[.*\]\s*" if may_be_list else "")
    return os.path.lexists(text) or not re.fullmatch(yaml_path, text, re.DOTALL)


def _put(into: dict[str, Any], nested: dict[str, Any], *, parents: int) -> None:
    """Put the value that lies below so many parents, each the only key of its mapping, at the same place."""
    [(key, value)] = nested.items()
    if parents and isinstance(into.get(key), dict):
        _put(into[key], value, parents=parents - 1)
    else:
        into[key] = value


def anchored(text: str, base: Path | None = None) -> str:
    """An absolute path of what a user wrote; a URL stays, unless a file has that very name.

    Args:
        text: as written.
        base: the folder from which a relative path starts; None for the current one.
    """
    base = base or Path.cwd()
    if os.path.lexists(base / text) and not text.startswith("s3://"):
        return os.path.normpath(base / text)
    if _URL.match(text):
        return text
    return os.path.normpath(base / os.path.expanduser(text))  # noqa: PTH111  it also takes a user that is not there


def _anchor_paths(raw: dict[str, Any], base: Path, paths: Sequence[str], where: str) -> dict[str, Any]:
    """Make relative paths absolute in the fields that hold paths; names of the hub stay.

    Raises:
        RequestError: YAML takes the name for a number, a date or a truth value.
    """

    def of_value(value: Any) -> Any:
        if isinstance(value, list):
            return [of_value(item) for item in value]
        if isinstance(value, bool | int | float | date):
            raise RequestError(f"{where}: {key_path}: YAML takes this name for {value!r}; put it in quotes")
        if not isinstance(value, str) or not value:
            return value
        of_hub = key == "checkpoint" and value.startswith(HUB_NAMES) and not os.path.lexists(base / value)
        return value if of_hub else anchored(value, base)

    for key_path in paths:
        *parents, key = key_path.split(".")
        section: Any = raw
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and key in section:
            section[key] = of_value(section[key])
    return raw


def _describe(error: ValidationError, model: type[Part]) -> Iterator[str]:
    """One line a mistake: key path, value, remedy."""
    for mistake in error.errors():
        keys = [str(key) for key in mistake["loc"] if isinstance(key, str)]  # the others are positions in lists
        # pydantic appends the branch of a union ("str", "tuple[str, ...]"): not a key of the file.
        known = dict(_key_paths(model))
        while len(keys) > 1 and ".".join(keys) not in known and mistake["type"] != "extra_forbidden":
            keys.pop()
        path = ".".join(keys)
        if mistake["type"] == "extra_forbidden":
            yield f"{path}: unknown key; {_suggest(path, known)}"
        elif mistake["type"] == "missing":
            yield f"{path}: missing; add it ({known.get(path, 'required').rstrip('.')})"
        elif not path:
            yield mistake["msg"].removeprefix("Value error, ")
        else:
            message = mistake["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
            found = "" if isinstance(mistake["input"], dict) else f"{mistake['input']!r} "  # a mapping fills the line
            yield f"{path}: {found}{message}"


def _key_paths(part: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key path that a file may have, and what it is for."""
    for name, field in part.model_fields.items():
        yield prefix + name, field.description or "required"
        for inner in (field.annotation, *typing.get_args(field.annotation)):  # a part, `Part | None`, a list of parts
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _key_paths(inner, f"{prefix}{name}.")


def _suggest(path: str, known: Iterable[str]) -> str:
    parent, _, name = path.rpartition(".")
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    elsewhere = [key for key in known if key.rpartition(".")[2] == name]
    names = [key.rpartition(".")[2] for key in siblings]
    close = [f"{parent}.{near}".lstrip(".") for near in difflib.get_close_matches(name, names, n=1, cutoff=0.5)]
    if near := elsewhere or close:
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(names)}"
