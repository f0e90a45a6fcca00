"""A run is deleted only if nothing keeps it: no rule, and nothing that must stay whatever the rules say."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.overview.runs_list import runs_of
from smoothcert.pipeline.overview.stored import Stored, stored_of
from smoothcert.pipeline.prune.choice import Choice, Rule, choose, rules_of
from tests.helpers.outputs import NOW, make_output

LAST, DAYS = Rule("last", 1), Rule("days", 10)
AGES = (50.0, 40.0, 30.0, 20.0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[Stored]:
    """Four complete runs of one job; their ages are set, all else is theirs."""
    [first, *_] = make_output(tmp_path_factory.mktemp("output"), len(AGES))
    found = stored_of(runs_of(str(first.parent)).runs, NOW)
    return [replace(one, age_days=age, modified=0.0) for one, age in zip(found, AGES, strict=True)]


def kept(choices: Sequence[Choice]) -> list[bool]:
    return [choice.kept for choice in choices]


def unfinished(one: Stored) -> Stored:
    return replace(one, run=replace(one.run, success=None))


def named(one: Stored, name: str) -> Stored:
    run = one.run.run
    return replace(one, run=replace(one.run, run=replace(run, record=run.record.model_copy(update={"name": name}))))


def test_rules_are_read() -> None:
    """And refused with an example."""
    assert rules_of(["last:30", "days:90"]) == [("last", 30), ("days", 90)]
    for text in ("last:0", "last", "30", "days:-1", "weeks:1", "last:1.5", "days:٣", "last: 3", ""):
        with pytest.raises(RequestError, match=r"--keep .*is no rule; write last:N or days:N"):
            rules_of([text])
    with pytest.raises(RequestError, match="--keep: missing; say what stays"):
        rules_of([])


def test_last_counts_complete_runs_of_each_job(stored: list[Stored]) -> None:
    """By the name of the job; the newest stay."""
    assert kept(choose(stored, [LAST], {}, NOW)) == [False, False, False, True]
    assert kept(choose(stored, [Rule("last", 3)], {}, NOW)) == [False, True, True, True]
    two_jobs = [named(stored[0], "other"), *stored[1:]]
    assert kept(choose(two_jobs, [LAST], {}, NOW)) == [True, False, False, True]
    newest_unfinished = [*stored[:3], unfinished(stored[3])]
    assert kept(choose(newest_unfinished, [LAST], {}, NOW)) == [False, False, True, False]


def test_days_count_from_the_beginning(stored: list[Stored]) -> None:
    """A run stays if any rule keeps it."""
    assert kept(choose(stored, [Rule("days", 40)], {}, NOW)) == [False, True, True, True]
    assert kept(choose(stored, [LAST, Rule("days", 30)], {}, NOW)) == [False, False, True, True]
    assert choose(stored, [LAST, Rule("days", 30)], {}, NOW)[3].rules == (LAST, Rule("days", 30))


def test_a_baseline_stays(stored: list[Stored]) -> None:
    """Whatever its age."""
    choices = choose(stored, [DAYS], {stored[1].run_id: "nightly: vit"}, NOW)
    assert kept(choices) == [False, True, False, False]
    assert choices[1].protected == ("it is the baseline of nightly: vit",)


def test_a_source_of_a_kept_run_stays(stored: list[Stored]) -> None:
    """Through others, too; one of a run that goes does not."""
    a, b, c, d = stored
    chain = [a, replace(b, adopts_from={a.run_id: 3}), c, replace(d, adopts_from={b.run_id: 1, "gone": 2})]
    choices = choose(chain, [LAST], {}, NOW)
    assert kept(choices) == [True, True, False, True]
    assert choices[0].protected == (f"run {b.run_id}, which stays, has taken over 3 files of it",)
    goes = [a, b, replace(c, adopts_from={a.run_id: 3}), d]
    assert kept(choose(goes, [LAST], {}, NOW)) == [False, False, False, True]


def test_an_unfinished_run_stays_for_a_day(stored: list[Stored]) -> None:
    """Counted from its newest file: somebody may be at work on it."""
    hours = [1, 23, 25, 100]
    runs = [
        replace(unfinished(one), modified=NOW.timestamp() - 3600 * age) for one, age in zip(stored, hours, strict=True)
    ]
    choices = choose(runs, [DAYS], {}, NOW)
    assert kept(choices) == [True, True, False, False]
    assert choices[0].protected == ("it is unfinished, and one of its files is younger than a day",)


def test_what_a_person_should_look_at_stays(stored: list[Stored]) -> None:
    """A run without a date, with a damaged file, or with _SUCCESS and without a file of votes."""
    a, b, c, d = stored
    lacking = replace(c, run=replace(c.run, published=1))
    choices = choose([replace(a, age_days=None), replace(b, problem="votes/x is damaged"), lacking, d], [DAYS], {}, NOW)
    assert [one.protected for one in choices] == [
        ("its run.json does not say when it began",),
        ("it is damaged: votes/x is damaged",),
        ("it is damaged: it has _SUCCESS and lacks files",),
        (),
    ]


def test_a_copy_of_a_run_is_a_run_of_its_own(stored: list[Stored]) -> None:
    """It has the same id, and another age."""
    old = stored[0]
    moved = replace(old.run.run, url=f"{old.url}-copy")
    copy = replace(old, run=replace(old.run, run=moved), age_days=1.0)
    assert kept(choose([old, copy], [DAYS], {}, NOW)) == [False, True]


@given(data=st.data())
def test_exactly_what_a_kept_run_reaches_stays(data: st.DataObject, stored: list[Stored]) -> None:
    """Oracle: the transitive closure of adoption, by Warshall's algorithm; also with cycles."""
    ids = [one.run_id for one in stored]
    pairs = data.draw(st.sets(st.tuples(st.sampled_from(ids), st.sampled_from(ids))))
    roots = data.draw(st.sets(st.sampled_from(ids)))
    runs = [replace(one, adopts_from={to: 1 for start, to in pairs if start == one.run_id}) for one in stored]
    reach = {(one, other): (one, other) in pairs or one == other for one in ids for other in ids}
    for middle in ids:
        for one in ids:
            for other in ids:
                reach[one, other] |= reach[one, middle] and reach[middle, other]
    choices = choose(runs, [DAYS], dict.fromkeys(roots, "x"), NOW)
    assert kept(choices) == [any(reach[root, one] for root in roots) for one in ids]
