"""A wrong entry of run.json is named, whichever it is, and ends the check only if rows cannot be checked without it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.verify.check import verify
from tests.helpers.damages import Change, Damages
from tests.helpers.finished_runs import edit_json, has

DAMAGES = Damages()
MAY_BE_NULL = {"job.execution.actors", "job.execution.cpus_per_actor"}
"""Entries that have a value in the runs of the tests."""


def edit(change: Callable[[dict[str, Any]], Any]) -> Change:
    return lambda run: edit_json(run / "run.json", change)


DAMAGES.add("^run.json shards.0.url: is None, expected a valid string$")(
    edit(lambda record: record["shards"][0].update(url=None))
)
DAMAGES.add("^run.json checkpoint.url: is None, expected a valid string$")(
    edit(lambda record: record["checkpoint"].update(url=None))
)
DAMAGES.add("^run.json checkpoint.url: is missing$")(edit(lambda record: record["checkpoint"].pop("url")))
DAMAGES.add("^run.json job.patches: is all, expected a valid list$")(
    edit(lambda record: record["job"].update(patches="all"))
)
DAMAGES.add("^run.json job.patches.1: is 0, expected greater than or equal to 1$")(
    edit(lambda record: record["job"].update(patches=[1, 0]))
)
DAMAGES.add("^run.json name: is None, expected a valid string$")(edit(lambda record: record.update(name=None)))
DAMAGES.add("^run.json versions.numpy: is 2, expected a valid string$")(
    edit(lambda record: record["versions"].update(numpy=2))
)


@pytest.mark.parametrize(("change", "expected", "problems"), DAMAGES, ids=[expected for _, expected, _ in DAMAGES])
def test_a_wrong_entry_is_one_finding(run: Path, change: Change, expected: str, problems: int) -> None:
    """The rows do not need it, so all of them are checked."""
    change(run)
    report = verify(str(run))
    assert has(report.problems, expected)
    assert len(report.problems) == problems, report.problems
    assert report.rows == 13


def test_entries_that_older_runs_lack_may_be_missing(run: Path) -> None:
    """The other commands read such a run, too."""

    def drop(record: dict[str, Any]) -> None:
        for key in ("created", "versions"):
            del record[key]

    edit_json(run / "run.json", drop)
    assert verify(str(run)).problems == ()


def test_a_run_with_wrong_entries_is_not_replayed(run: Path) -> None:
    """That is one more finding, beside the one that names the entry."""
    edit_json(run / "run.json", lambda record: record["shards"][0].update(url=None))
    found = verify(str(run), replay=5, seed=1).problems
    assert found[-1] == "run.json: cannot be used to replay votes; restore it, or leave --replay out"
    assert len(found) == 2


Place = tuple[str | int, ...]


def leaves(content: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The place and the value of each single value, and of each empty mapping or list."""
    parts = dict(enumerate(content)) if isinstance(content, list) else content
    if not isinstance(parts, dict) or not parts:
        yield place, content
        return
    for key, part in parts.items():
        yield from leaves(part, (*place, key))


def replaced(content: Any, place: Place, value: Any) -> Any:
    changed = json.loads(json.dumps(content))
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return changed


def names_of(place: Place) -> list[str]:
    """The entry, what contains it, and the part of the identity that it determines."""
    path = list(map(str, place))
    places = [path, ["identity", *path[1:]]] if path[0] == "job" else [path]
    return [".".join(each[:length]) for each in places for length in range(1, len(each) + 1)]


@pytest.mark.parametrize("which", ["finished", "finished_partial"])
@pytest.mark.parametrize("value", [None, {"wrong": "type"}, True], ids=["null", "mapping", "truth value"])
def test_no_wrong_entry_passes(request: pytest.FixtureRequest, tmp_path: Path, which: str, value: Any) -> None:
    """Each entry in turn: a finding or the error names it, on one line."""
    run = Path(shutil.copytree(request.getfixturevalue(which), tmp_path / "run"))
    content = json.loads((run / "run.json").read_text())
    for place, original in leaves(content):
        path = ".".join(map(str, place))
        if type(value) is type(original) or (value is None and path in MAY_BE_NULL):
            continue
        (run / "run.json").write_text(json.dumps(replaced(content, place, value)))
        try:
            lines = list(verify(str(run)).problems)
        except RequestError as error:
            lines = [str(error)]
        assert any(f" {name}: " in line or f"({name}: " in line for line in lines for name in names_of(place)), (
            path,
            lines,
        )
        assert not any("\n" in line for line in lines)
