"""`smoothcert prune`: lists what would be deleted, and deletes it if the user says so.

Not covered: which runs that are (choice.py); how a run is deleted (deletion.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from rich.console import Console

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.console.looks import number_of, say
from smoothcert.pipeline.nightly.history import baseline_runs
from smoothcert.pipeline.overview.runs_list import runs_of
from smoothcert.pipeline.overview.stored import Stored, stored_of
from smoothcert.pipeline.prune.choice import Choice, choose, rules_of
from smoothcert.pipeline.prune.deletion import Rest, delete, rests_of
from smoothcert.workers.storage.store import AnyStore


@dataclass(frozen=True)
class Pruning:
    """What may be deleted of an output.

    Attributes:
        choices: each run that can be read, the oldest first.
        rests: of runs whose deletion was interrupted.
        damaged: a line for each run that cannot be read; it stays.
        storage: how to reach the output.
    """

    choices: tuple[Choice, ...]
    rests: tuple[Rest, ...]
    damaged: tuple[str, ...]
    storage: Storage

    @property
    def to_delete(self) -> list[Stored]:
        return [choice.stored for choice in self.choices if not choice.kept]

    @property
    def protected(self) -> list[Choice]:
        """The runs that no rule keeps, but something else does."""
        return [choice for choice in self.choices if choice.protected and not choice.rules]

    @property
    def size_bytes(self) -> int:
        return sum([*(one.size_bytes for one in self.to_delete), *(rest.size_bytes for rest in self.rests)])


def plan_pruning(output: str, keep: Sequence[str], storage: Storage, now: datetime) -> Pruning:
    """Decide what may be deleted.

    Args:
        output: the folder that holds the runs.
        keep: rules such as `last:30`.
        storage: how to reach it.
        now: in UTC.
    Raises:
        RequestError: a rule cannot be read, there are no runs, or it cannot be told which are baselines.
    """
    rules = rules_of(keep)
    rests = rests_of(output, storage)
    try:
        found, damaged = runs_of(output, storage)
    except RequestError:
        if not rests:
            raise
        found, damaged = [], []
    choices = choose(stored_of(found, now), rules, baseline_runs(output, storage), now)
    return Pruning(tuple(choices), tuple(rests), tuple(damaged), storage)


def delete_all(pruning: Pruning) -> list[str]:
    """Delete what may be deleted, the oldest first; the files that smoothcert did not write stay, and are returned."""
    store = AnyStore(pruning.storage)
    urls = [*(rest.url for rest in pruning.rests), *(one.url for one in pruning.to_delete)]
    return [left for url in urls for left in delete(url, store)]


def as_json(pruning: Pruning, left: Sequence[str] | None) -> dict[str, Any]:
    """What the command prints.

    Args:
        pruning: what may be deleted.
        left: files that stayed; None if nothing was deleted.
    """
    return {
        "deleted": left is not None,
        "runs": [
            {
                "run_id": choice.stored.run_id,
                "job": choice.stored.run.run.name,
                "path": choice.stored.url,
                "complete": choice.stored.run.complete,
                "size_bytes": choice.stored.size_bytes,
                "age_days": choice.stored.age_days,
                "delete": not choice.kept,
                "rules": [str(rule) for rule in choice.rules],
                "protected": list(choice.protected),
            }
            for choice in pruning.choices
        ],
        "rests": [rest._asdict() for rest in pruning.rests],
        "size_bytes": pruning.size_bytes,
        "left": list(left or ()),
    }


def show_pruning(pruning: Pruning, left: Sequence[str] | None, console: Console) -> None:
    """Print what may be deleted and what stays although no rule keeps it; arguments as for `as_json`."""
    begins = "would delete" if left is None else "deleted"
    for rest in pruning.rests:
        name = PurePosixPath(rest.url).name
        say(console, f"{begins}: the rest of {name}, whose deletion was interrupted, {_size(rest.size_bytes)}")
    for one in pruning.to_delete:
        state = "complete" if one.run.complete else "UNFINISHED"
        say(console, f"{begins}: {_in_words(one)}, {state}, {one.age_days:,.1f} days old, {_size(one.size_bytes)}")
    for choice in pruning.protected:
        for why in choice.protected:
            say(console, f"stays: {_in_words(choice.stored)}: {why}")
    for url in left or ():
        say(console, f"notice: {url} stays: smoothcert did not write it")
    number = len(pruning.to_delete) + len(pruning.rests)
    if not number:
        say(console, "nothing to delete")
    elif left is None:
        what = f"{number_of(number, 'run')} of {len(pruning.choices) + len(pruning.rests):,}"
        say(console, f"{what}, {_size(pruning.size_bytes)}; add --yes to delete them")


def _in_words(one: Stored) -> str:
    return f"{one.run_id}, {one.run.run.name}"


def _size(size_bytes: int) -> str:
    """`12.3 MB`."""
    for power, unit in enumerate(("bytes", "kB", "MB", "GB")):
        if size_bytes < 1000 ** (power + 1):
            return f"{size_bytes:,} bytes" if power == 0 else f"{size_bytes / 1000**power:.1f} {unit}"
    return f"{size_bytes / 1000**4:,.1f} TB"
