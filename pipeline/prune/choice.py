"""Which runs of an output are kept, and why; the others may be deleted.

A run is kept if one rule of `--keep` says so, and also, whatever the rules say:

- a baseline of nights;
- a run from which a kept run has taken over files, directly or through others: it shows where those rows come from;
- an unfinished run of which a file is younger than a day: somebody may be at work on it;
- a run that is damaged, or does not say when it began: a person should look at it first.

Not covered: deleting (deletion.py).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.console.looks import number_of
from smoothcert.pipeline.overview.stored import Stored

_DAY_S = 86_400


class Rule(NamedTuple):
    """`last:30` keeps the newest 30 complete runs of each job, by its name; `days:90` keeps what began since."""

    kind: Literal["last", "days"]
    number: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}"


def rules_of(texts: Sequence[str]) -> list[Rule]:
    """The rules that `--keep` names.

    Raises:
        RequestError: there is none, or one is no rule.
    """
    if not texts:
        raise RequestError("--keep: missing; say what stays, such as --keep last:30 or --keep days:90")
    return [_rule_of(text) for text in texts]


def _rule_of(text: str) -> Rule:
    found = re.fullmatch(r"(last|days):([1-9]\d{0,5})", text, re.ASCII)
    if found is None:
        raise RequestError(f"--keep {text}: is no rule; write last:N or days:N, with N from 1, such as last:30")
    return Rule("last" if found[1] == "last" else "days", int(found[2]))


@dataclass(frozen=True)
class Choice:
    """A run, the rules that keep it, and what else keeps it; it may be deleted if there is neither."""

    stored: Stored
    rules: tuple[Rule, ...] = ()
    protected: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        return bool(self.rules or self.protected)


def choose(
    stored: Sequence[Stored], rules: Sequence[Rule], baselines: Mapping[str, str], now: datetime
) -> list[Choice]:
    """Decide for each run whether it is kept.

    Args:
        stored: all runs of an output that can be read.
        rules: what `--keep` names.
        baselines: the runs that are baselines, with what they are the baseline of, in words.
        now: in UTC.
    """
    newest_first = sorted(stored, key=lambda one: (one.age_days is None, one.age_days or 0.0))
    place, counts = dict[str, int](), Counter[str]()  # by URL: a copy of a run has the same id
    for one in newest_first:
        if one.run.complete:
            counts[one.run.run.name] += 1
            place[one.url] = counts[one.run.run.name]
    by_rule = {one.url: tuple(rule for rule in rules if _keeps(rule, one, place)) for one in stored}
    protected = {one.url: _protections(one, baselines, now) for one in stored}
    kept = [one for one in stored if by_rule[one.url] or protected[one.url]]
    while kept:  # what is kept for another run keeps its own sources, too
        one = kept.pop()
        for source in stored:
            if files := (one.adopts_from or {}).get(source.run_id, 0):
                if not by_rule[source.url] and not protected[source.url]:
                    kept.append(source)
                protected[source.url].append(
                    f"run {one.run_id}, which stays, has taken over {number_of(files, 'file')} of it"
                )
    return [Choice(one, by_rule[one.url], tuple(protected[one.url])) for one in stored]


def _keeps(rule: Rule, one: Stored, place: Mapping[str, int]) -> bool:
    if rule.kind == "last":
        return place.get(one.url, rule.number + 1) <= rule.number
    return one.age_days is not None and one.age_days <= rule.number


def _protections(one: Stored, baselines: Mapping[str, str], now: datetime) -> list[str]:
    why = []
    if one.run_id in baselines:
        why.append(f"it is the baseline of {baselines[one.run_id]}")
    if one.problem is not None:
        why.append(f"it is damaged: {one.problem}")
    if one.run.success is not None and not one.run.complete:
        why.append("it is damaged: it has _SUCCESS and lacks files")
    if one.age_days is None:
        why.append("its run.json does not say when it began")
    if not one.run.complete and now.timestamp() - one.modified < _DAY_S:
        why.append("it is unfinished, and one of its files is younger than a day")
    return why
