"""A night of a suite: certify every entry, compare it with its baseline, apply its gates, record it, and tell.

A night that is killed leaves no record; the same command continues it. The record is written before a baseline moves,
so a night that is killed between the two repeats its comparison.

Not covered: the pass over the images (certify/suite_driver.py), the verdict of an entry (judge.py).
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.suite import Suite
from smoothcert.manifests.version import __version__
from smoothcert.pipeline.certify.options import NO_OPTIONS, Options
from smoothcert.pipeline.certify.outcome import Outcome
from smoothcert.pipeline.console.looks import console_of, say
from smoothcert.pipeline.nightly.history import PAGE, History, name_at
from smoothcert.pipeline.nightly.judge import Judge, check_reasons
from smoothcert.pipeline.nightly.notify import Webhook
from smoothcert.pipeline.nightly.records import NightRecord
from smoothcert.pipeline.nightly.sentences import exit_code_of, verdict_of, worst_of


def nightly(
    suite: Suite,
    options: Options = NO_OPTIONS,
    *,
    notify: str | None = None,
    moves_baselines: bool = True,
    json_to: TextIO | None = None,
) -> int:
    """Run a night.

    Args:
        suite: what to certify.
        options: how.
        notify: URL of a webhook that gets the verdict.
        moves_baselines: whether a run may become the baseline of its entry by itself.
        json_to: write one JSON object there; messages for people go to stderr.
    Returns:
        The exit code: 0 all gates hold; 1 a gate tripped, or the figures of a complete run cannot be trusted; 2 an
        entry was refused or cannot be compared; 3 a run did not finish.
    Raises:
        RequestError: `notify` is no URL, or `allow` of the suite names no reason.
    """
    check_reasons(suite)
    hook = None if notify is None else Webhook.of(notify)
    job = next(iter(suite.jobs.values()))
    history = History(job.output, job.storage)
    console = console_of(stderr=json_to is not None)
    began = datetime.now(UTC)
    outcomes = _outcomes(suite, options, quiet=json_to is not None)
    judge = Judge(suite, history, name_at(began), moves_baselines, _reports(history))
    entries = tuple(judge.judge(entry, outcomes[entry]) for entry in suite.jobs)
    ended = datetime.now(UTC)
    night = NightRecord(
        night=judge.night,
        suite=suite.name,
        began=began.isoformat(timespec="seconds"),
        ended=ended.isoformat(timespec="seconds"),
        seconds=round((ended - began).total_seconds(), 3),
        version=__version__,
        exit_code=exit_code_of(entries),
        entries=entries,
    )
    kept = _keep(history, night)
    for one in entries:
        say(console, one.sentence)
    for error in kept.errors:
        say(console, f"error: {error}")
    code = worst_of([night.exit_code, *kept.codes])
    notices = [*judge.notices, *kept.notices]
    if hook is not None and (failure := hook.post(night, code)):
        notices.append(failure)
    for notice in notices:
        say(console, f"notice: {notice}")
    page = f"{history.url}/{PAGE}"
    say(console, page)
    if json_to is not None:
        value = night.as_json() | {"exit_code": code, "verdict": verdict_of(entries)}
        print(json.dumps(value | {"page": page, "errors": kept.errors, "notices": notices}), file=json_to)
    return code


def _outcomes(suite: Suite, options: Options, *, quiet: bool) -> Mapping[str, Outcome]:
    """What became of each entry. An error that concerns all of them is the outcome of each."""
    try:
        return certify_entries(suite, options, quiet=quiet)
    except RunError as error:
        return dict.fromkeys(suite.jobs, Outcome("unfinished", (str(error),)))
    except RequestError as error:
        return dict.fromkeys(suite.jobs, Outcome("refused", (str(error),)))


def certify_entries(suite: Suite, options: Options, *, quiet: bool) -> Mapping[str, Outcome]:
    """One pass over the images for all entries; what `certify` prints goes to stderr if quiet."""
    from smoothcert.pipeline.certify.suite_driver import certify_suite

    outcomes: dict[str, Outcome] = certify_suite(suite, options, json_to=io.StringIO() if quiet else None)
    return outcomes


def _reports(history: History) -> dict[str, str]:
    """The report of each run that has one."""
    try:
        nights = history.nights().records
    except SmoothcertError:  # the record of the night cannot be written either, which says why
        return {}
    return {one.run_id: one.report for night in nights for one in night.entries if one.run_id and one.report}


@dataclass
class _Kept:
    """What went wrong while a night was recorded.

    Attributes:
        errors, codes: why the record or a baseline is not written, and exit codes that this gives.
        notices: what else to know.
    """

    errors: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def _keep(history: History, night: NightRecord) -> _Kept:
    """Write the record, move baselines, and write the page."""
    kept = _Kept()
    try:
        history.publish_night(night)
        for one in night.entries:
            if one.becomes is not None and one.run_id is not None:
                history.accept(night.suite, one.entry, one.run_id, one.becomes)
    except SmoothcertError as error:
        kept.errors.append(f"the history of this night is not whole: {error}")
        kept.codes.append(2 if isinstance(error, RequestError) else 3)
    try:
        history.write_page()
        kept.notices += [*history.nights().damaged, *history.acceptances()[1]]
    except SmoothcertError as error:
        kept.notices.append(f"{history.url}/{PAGE} is not written: {error}")
    return kept
