"""`smoothcert accept`: a run becomes the baseline of the entries whose nights made it.

Not covered: baselines that move by themselves (judge.py).
"""

from dataclasses import dataclass
from typing import Any

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.manifests.job import Storage
from smoothcert.manifests.names import listed
from smoothcert.pipeline.nightly.history import History, entries_of, in_words
from smoothcert.pipeline.nightly.records import AcceptanceRecord
from smoothcert.workers.runs.run import open_run


@dataclass(frozen=True)
class Accepted:
    """A run is the baseline of an entry now.

    Attributes:
        suite, entry: which entry.
        run_id: the run.
        replaces: the baseline before; None if there was none, or it cannot be read; the run itself if it was it.
    """

    suite: str
    entry: str
    run_id: str
    replaces: str | None

    @property
    def line(self) -> str:
        """What happened, a sentence."""
        entry = in_words(self.suite, self.entry)
        if self.replaces == self.run_id:
            return f"{entry}: run {self.run_id} is the baseline already"
        before = "" if self.replaces is None else f", in place of {self.replaces}"
        return f"{entry}: the baseline is now run {self.run_id}{before}"

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def accept(url: str, storage: Storage) -> tuple[list[Accepted], list[str]]:
    """Make a run the baseline; gives the entries, and a line for each record of the history that cannot be read.

    Args:
        url: of the run, OUTPUT/RUN_ID.
        storage: how to reach it.
    Raises:
        RequestError: there is no complete run, no night made it, or the history cannot be written.
        RunError: a file of the run is damaged, or the history cannot be written.
    """
    run = open_run(url, storage)
    if not run.complete():
        raise RequestError(f"{run.url} is unfinished; run the suite's command again, and accept the complete run")
    history = History(run.url.rpartition("/")[0], storage)
    nights, damaged = history.nights()
    pairs = sorted({(night.suite, one.entry) for night in nights for one in night.entries if one.run_id == run.run_id})
    if not pairs:
        raise RequestError(f"{run.url}: no night made this run; {_instead(history, damaged)}")
    accepted = [_accept(history, suite, entry, run.run_id) for suite, entry in pairs]
    history.write_page()
    return accepted, damaged


def _accept(history: History, suite: str, entry: str, run_id: str) -> Accepted:
    try:
        before: AcceptanceRecord | None = history.baseline(suite, entry)
    except SmoothcertError:  # damaged; accepting a run is the remedy
        before = None
    if before is None or before.run_id != run_id:
        history.accept(suite, entry, run_id, "accept")
    return Accepted(suite, entry, run_id, None if before is None else before.run_id)


def _instead(history: History, damaged: list[str]) -> str:
    """Which runs nights have made."""
    known = [f"{in_words(*pair)}: {run_id}" for pair, run_id in entries_of(history.nights().records).items()]
    lines = f"; {damaged[0]}" if damaged else ""
    if not known:
        return f"{history.url} has no nights with runs; `smoothcert nightly SUITE` makes them{lines}"
    return f"name one of a night, such as the last of each entry: {listed(known, 20)}{lines}"
