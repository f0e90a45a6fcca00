"""No fault loses, doubles or changes a row of any run of a suite: real drivers, real faults, as in test_faults.py."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import jobs
from tests.helpers.faults import (
    Comparison,
    Rows,
    before_shards,
    compare,
    once,
    record,
    rows_of_files,
    undisturbed_rows,
)
from tests.helpers.suites import entries_of, write_suite

SHARDS, IMAGES, ENTRIES = 8, 6, 3
WHOLE = Comparison(SHARDS * IMAGES * ENTRIES, SHARDS * IMAGES * ENTRIES, 0, 0)
DONE = r"^\[\d+/\d+\] \w+: \S+: \d+ images"
PUBLICATION = "smoothcert.workers.runs.publication"
# An actor dies between the files of two runs of a shard.
BETWEEN_TWO_FILES = """
import os, signal
from pathlib import Path
_undisturbed = Publication.publish
def _disturbed(self, task, rows, tar, *, seconds):
    published = _undisturbed(self, task, rows, tar, seconds=seconds)
    {statement}
    return published
Publication.publish = _disturbed
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return suite_of(tmp_path, SHARDS, actors=1)


def suite_of(folder: Path, shards: int, *, actors: int) -> Path:
    """The suite of the small job, whose shards are given up after many attempts."""
    jobs.write_shards(folder, shards, IMAGES)
    return write_suite(folder, execution={"cpus_per_actor": 1, "actors": actors, "max_attempts": 50})


def undisturbed(suite: Path) -> dict[str, Rows]:
    """The rows of each entry, by its run id, as its job gets them alone and without Ray."""
    found = {}
    for name, job in entries_of(suite).items():
        alone = suite.parent / f"alone-{name}"
        file = suite.parent / f"{name}.json"  # JSON is YAML
        file.write_text(json.dumps(job.model_dump(mode="json", exclude_defaults=True)))
        rows = undisturbed_rows(file, alone)
        (run,) = alone.iterdir()
        found[run.name] = rows
    return found


def compared(suite: Path, expected: dict[str, Rows]) -> Comparison:
    """The rows of all runs of the suite with what they should be."""
    runs = [path for path in (suite.parent / "runs").iterdir() if path.is_dir()]
    assert {run.name for run in runs} == expected.keys()
    each = [compare(rows_of_files(run), expected[run.name]) for run in runs]
    return Comparison(*map(sum, zip(*each, strict=True)))


def test_an_actor_dies_between_the_files_of_two_runs(suite, start):
    """The file that is there stays; only the other runs get the shard again."""
    kill = once(suite.parent, "os.kill(os.getpid(), signal.SIGKILL)")
    driver = start(suite, inject={PUBLICATION: BETWEEN_TWO_FILES.format(statement=kill)})
    assert driver.wait() == 0, driver.text
    assert len(driver.when(r"^again: \d\d\.tar: an actor died")) in (1, 2), driver.text
    comparison = compared(suite, undisturbed(suite))
    record("suite of 3: an actor dies between the files of two runs", comparison, "0")
    assert comparison == WHOLE


def test_two_drivers_share_a_suite(tmp_path, start):
    """Each does a part, both end with 0. They meet at the first shards, and need more to part."""
    shards = 24
    suite = suite_of(tmp_path, shards, actors=1)
    (suite.parent / "arrived").mkdir()
    together = before_shards(
        f"arrived = Path({str(suite.parent / 'arrived')!r})",
        "(arrived / str(os.getpid())).touch()",
        "while len(list(arrived.iterdir())) < 2: time.sleep(0.05)",
        "time.sleep(0.4)",
    )
    drivers = [start(suite, inject=together) for _ in range(2)]
    assert [driver.wait() for driver in drivers] == [0, 0], "\n\n".join(driver.text for driver in drivers)
    comparison = compared(suite, undisturbed(suite))
    record("suite of 3: two drivers at once", comparison, "0, 0")
    assert comparison == Comparison(shards * IMAGES * ENTRIES, shards * IMAGES * ENTRIES, 0, 0)
    assert all(0 < len(driver.when(DONE)) < shards * ENTRIES for driver in drivers), [d.text for d in drivers]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_actors_and_drivers_of_a_suite_are_killed_at_random_moments(tmp_path, start):
    """SIGKILL of 12 actors and 6 drivers, as they start, load, vote or publish."""
    suite = suite_of(tmp_path, 40, actors=2)
    expected = undisturbed(suite)
    random, slow = np.random.default_rng(0), before_shards("time.sleep(1)")
    driver, actors, drivers = start(suite, inject=slow), 0, 0
    while actors < 12 or drivers < 6:
        time.sleep(random.uniform(0, 6))
        if driver.process.poll() is not None:
            break
        if drivers < 6 and random.random() < 1 / 3:
            os.kill(driver.process.pid, signal.SIGKILL)
            driver.wait()
            driver, drivers = start(suite, inject=slow), drivers + 1
        elif running := driver.actors():
            driver.signal_actor(signal.SIGKILL, int(random.choice(running)))
            actors += 1
    assert driver.wait(900) == 0, driver.text
    comparison = compared(suite, expected)
    record(f"suite of 3: SIGKILL of {actors} actors and {drivers} drivers at random moments", comparison, "0")
    assert comparison == Comparison(40 * IMAGES * ENTRIES, 40 * IMAGES * ENTRIES, 0, 0)
    assert actors >= 6
    assert drivers >= 4
