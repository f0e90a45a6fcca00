"""The suite file: several jobs on the same images, certified in one pass.

    name: nightly CIFAR-10
    images: {shards: test.tar}
    preprocess: {resize: null, crop: 32}
    output: runs
    gates: gates.yaml
    entries:
      column4: {model: {...}, ablation: {kind: column, size: 4}}
      column8: {model: {...}, ablation: {kind: column, size: 8}}

An entry is a job: the keys at the top of the file, and its own keys over them. In `model`, `preprocess` and `ablation`
single keys are replaced; any other value, `model.options` too, is replaced as a whole.

Not covered: one job (job.py); what the gates are (gates.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ValidationError

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.gates import Gates, load_gates
from smoothcert.manifests.job import Job
from smoothcert.manifests.locations import Anchored
from smoothcert.manifests.yaml_file import (
    Complete,
    Fields,
    Mistake,
    Part,
    fields_of,
    mistakes_in,
    read_yaml,
    set_up,
    validate,
)

SHARED = ("images", "output", "execution", "storage")
"""Keys of a job that no entry has of its own."""
_MERGED = ("model", "preprocess", "ablation")


@dataclass(frozen=True)
class Suite:
    """Jobs that share images, output, execution and storage.

    Attributes:
        name: shown in tables.
        jobs: by the name of their entry, in the order of the file.
        gates: of the entries that have gates, by name.
        baseline: how the baseline of a night moves: by `smoothcert accept` alone, or to each night whose gates held.
        allow: the reasons for which runs differ that a comparison with the baseline accepts.
    """

    name: str
    jobs: Mapping[str, Job]
    gates: Mapping[str, Gates] = field(default_factory=dict)
    baseline: Literal["accepted", "previous"] = "accepted"
    allow: tuple[str, ...] = ("images",)


class SuiteFile(Part):
    """The keys that a suite file has besides those of a job."""

    name: str
    """Shown in tables. The job of an entry is called `NAME: ENTRY`, unless the entry has a `name`."""
    entries: dict[str, dict[str, Any] | None]
    """The jobs by their names, of letters, digits, `-` and `_`. Each has the keys of a job that differ from those at
    the top, and may have `gates`."""
    gates: Annotated[str | dict[str, Any] | None, Anchored()] = None
    """A gate file, or its content as a mapping. An entry may have its own, or null for none."""
    baseline: Literal["accepted", "previous"] = "accepted"
    """When the run that a night is compared with changes: accepted: only by `smoothcert accept`; previous: also by
    each night whose gates held."""
    allow: tuple[Literal["images", "labels", "classes", "preprocessing", "threat"], ...] = ("images",)
    """Differences between a run and its baseline that do not refuse the comparison."""


def is_suite(path: str | Path) -> bool:
    """Whether a file is a suite, not a job: it has the key `entries`.

    Raises:
        RequestError: it cannot be read, or is no mapping.
    """
    return "entries" in read_yaml(Path(path), "job file", list(Job.model_fields))


def load_suite(path: str | Path, overrides: Sequence[str] = (), *, complete: Complete = lambda _: None) -> Suite:
    """Read a suite file.

    Args:
        path: a YAML file.
        overrides: `key.path=value` each, the value as YAML; later ones win. `entries.NAME.KEY` is a key of an entry.
        complete: adds to the content of each entry the settings that follow from others.
    Raises:
        RequestError: a line for each mistake, with file, entry, key path, value and remedy. A mistake in what entries
            share is one line, without an entry.
    """
    path = Path(path)
    raw = read_yaml(path, "suite file", ["name", "entries"])
    of_job, of_suite = fields_of(Job), fields_of(SuiteFile)
    of_entry = of_job | {"gates": of_suite["gates"]}
    names = _names(raw, overrides)
    of_entries = {f"entries.{name}.{key}": found for name in names for key, found in of_entry.items()}
    set_up(raw, path, overrides, of_job | of_suite | of_entries)

    head, lines = _head(raw, of_job | of_suite)
    shared = {key: value for key, value in raw.items() if key in Job.model_fields}
    entries, wrong = _entries(raw)
    jobs, gates, mistakes = {}, {}, {}
    for name, own in entries.items():
        jobs[name], mistakes[name] = _job(raw, name, own, of_entry, complete)
        if "gates" in own:
            gates[name], found = _gates(own["gates"])
            mistakes[name] += found
    gates_of_all, found = _gates(raw.get("gates"))
    lines += [*wrong, *(one.line for one in found), *_lines(mistakes, shared, entries)]
    if head is None or lines:
        raise RequestError("\n".join(f"{path}: {line}" for line in dict.fromkeys(lines)))
    with_gates = {name: one for name in jobs if (one := gates.get(name, gates_of_all)) is not None}
    return Suite(
        head.name, {name: job for name, job in jobs.items() if job is not None}, with_gates, head.baseline, head.allow
    )


def _names(raw: dict[str, Any], overrides: Sequence[str]) -> set[str]:
    """The names of all entries, also of those that only `--set` names."""
    names = set(map(str, raw["entries"])) if isinstance(raw.get("entries"), dict) else set()
    for override in overrides:
        keys = override.partition("=")[0].split(".")
        if keys == ["entries"]:
            raise RequestError(f"--set {override}: name an entry, such as entries.small.ablation.stride=4")
        if keys[0] == "entries":
            names.add(keys[1])
    return names


def _head(raw: dict[str, Any], fields: Fields) -> tuple[SuiteFile | None, list[str]]:
    """The keys of the suite itself, and the mistakes in them; the keys of a job are checked with the entries."""
    content = {key: value for key, value in raw.items() if key == "name" or key not in Job.model_fields}
    try:
        return SuiteFile.model_validate(content | {"entries": {}, "gates": None}), []
    except ValidationError as error:
        return None, [mistake.line for mistake in mistakes_in(error, fields, content)]


def _entries(raw: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The content of each entry, and a line for each that is no mapping or has no proper name."""
    entries = raw.get("entries")
    if not isinstance(entries, dict) or not entries:
        return {}, ["entries: names no job; add one, such as `small: {model: {...}}`"]
    wrong = {}
    for name, own in entries.items():
        if not isinstance(name, str):
            wrong[name] = f"YAML takes this name for {name!r}; put it in quotes"
        elif not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            wrong[name] = "a name has only letters, digits, - and _; change it"
        elif not isinstance(own, dict | None):
            wrong[name] = f"{own!r} is no job; write its keys, such as `{name}: {{model: {{...}}}}`"
    proper = {name: own or {} for name, own in entries.items() if name not in wrong}
    return proper, [f"entries.{name}: {line}" for name, line in wrong.items()]


def _job(
    raw: dict[str, Any], name: str, own: dict[str, Any], fields: Fields, complete: Complete
) -> tuple[Job | None, list[Mistake]]:
    """The job of an entry, or the mistakes in it."""
    misplaced = [key for key in own if key in SHARED or key in ("entries", "baseline", "allow")]
    mistakes = [
        Mistake((key,), f"{key}: is the same for all entries; move it to the top of the file") for key in misplaced
    ]
    content = {key: value for key, value in raw.items() if key in Job.model_fields}
    content["name"] = f"{raw['name']}: {name}" if "name" in raw else name
    for key, value in own.items():
        if key in _MERGED and isinstance(value, dict) and isinstance(content.get(key), dict):
            content[key] = content[key] | value
        elif key not in misplaced and key != "gates":
            content[key] = value
    try:
        complete(content)
        return Job.model_validate(content), mistakes
    except RequestError as error:
        return None, [*mistakes, *(Mistake((), line) for line in str(error).splitlines())]
    except ValidationError as error:
        return None, mistakes + mistakes_in(error, fields, content)


def _gates(value: Any) -> tuple[Gates | None, list[Mistake]]:
    """The gates that a gate file or its content holds, and the mistakes in them."""
    if value is None:
        return None, []
    if not isinstance(value, str | dict):
        return None, [Mistake(("gates",), "gates: should be a gate file, or its keys: `gates: {gates: [...]}`")]
    try:
        return load_gates(value) if isinstance(value, str) else validate(Gates, value, "in this file"), []
    except RequestError as error:
        lines = str(error).replace("in this file: ", "").splitlines()
        return None, [Mistake(("gates",), f"gates: {line}") for line in lines]


def _lines(
    mistakes: Mapping[str, list[Mistake]], shared: dict[str, Any], entries: Mapping[str, dict[str, Any]]
) -> list[str]:
    """A line for each mistake, with its entries unless it is in what all share."""
    shared_lines: list[str] = []
    names_of: dict[str, list[str]] = {}
    for name, found in mistakes.items():
        for place, line in found:
            if _is_shared(place, shared, entries[name]):
                shared_lines.append(line)
            else:
                names_of.setdefault(line, []).append(f"entries.{name}")
    for line, names in names_of.items():
        in_all = len(names) == len(entries) > 1
        shared_lines.append(line if in_all else f"{', '.join(names)}: {line}")
    return shared_lines


def _is_shared(place: tuple[int | str, ...], shared: Any, own: Any) -> bool:
    """Whether the value at a place comes from the top of the file."""
    if place and place[0] in SHARED and place[0] not in own:
        return True
    for key in place:
        if not isinstance(own, dict) or key not in own:
            return isinstance(shared, dict) and key in shared
        own, shared = own[key], shared.get(key) if isinstance(shared, dict) else None
    return False
