"""A night in words."""

from typing import Any

import pytest

from smoothcert.pipeline.nightly.records import CostRecord, EntryRecord, GateRecord, ImageRecord
from smoothcert.pipeline.nightly.sentences import exit_code_of, main_change, sentence_of, verdict_of, worst_of
from smoothcert.workers.runs.records import CertifiedRecord, FiguresRecord
from tests.helpers.nights import suite_of

FIGURES = FiguresRecord(
    images=10, smoothed_accuracy=0.7, certified=(CertifiedRecord(patch=(8, 8), exact=0.612, margin=0.6),)
)


def one(verdict: str = "gates hold", **fields: Any) -> EntryRecord:
    state = verdict if verdict in ("refused", "unfinished") else "complete"
    return EntryRecord(**{"entry": "e", "job": "j", "state": state, "verdict": verdict, "sentence": ""} | fields)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (one(figures=FIGURES), "e: gates hold: 61.20 % certified against 8 x 8, no baseline yet; nothing to compute"),
        # without patches, the figure is the smoothed accuracy; without labels and patches there is none
        (
            one(figures=FIGURES.model_copy(update={"certified": ()}), becomes="first"),
            "e: gates hold: 70.00 % smoothed accuracy, the first complete run, which becomes the baseline; nothing to "
            "compute",
        ),
        (one("no gates", figures=FiguresRecord()), "e: no gates: no baseline yet; nothing to compute"),
        (
            one("unfinished", problems=("a", "b", "c", "d"), cost=CostRecord(computed=2)),
            "e: UNFINISHED: a; b; c; and 1 more reason; run the same command again; 2 shards computed",
        ),
        (one("refused", problems=("no such checkpoint",)), "e: REFUSED: no such checkpoint"),
        (
            one("not compared", problems=("its baseline is gone",), figures=FIGURES),
            "e: NOT COMPARED: its baseline is gone; 61.20 % certified against 8 x 8; nothing to compute",
        ),
        # both faults of a run are said
        (
            one("gate tripped", problems=("no votes",), gates=(GateRecord(text="g", passed=False),), figures=FIGURES),
            "e: GATE TRIPPED: g; no votes; 61.20 % certified against 8 x 8, no baseline yet; nothing to compute",
        ),
        # five images are named, more are counted; unprintable names are escaped
        (
            one(
                "gate tripped",
                figures=FIGURES,
                gates=(
                    GateRecord(text="holds", passed=True),
                    GateRecord(
                        text="g",
                        passed=False,
                        images=tuple(ImageRecord(shard="a.tar", key=f"\x1b{key}") for key in range(20)),
                        images_in_all=23,
                    ),
                ),
            ),
            "e: GATE TRIPPED: g; images: 'a.tar/\\x1b0', 'a.tar/\\x1b1', 'a.tar/\\x1b2', 'a.tar/\\x1b3', "
            "'a.tar/\\x1b4' and 18 more; 61.20 % certified against 8 x 8, no baseline yet; nothing to compute",
        ),
    ],
)
def test_a_sentence_says_what_became_of_an_entry(record: EntryRecord, sentence: str, tmp_path: Any) -> None:
    assert sentence_of(record, suite_of(tmp_path)) == sentence


@pytest.mark.parametrize(
    ("verdicts", "says", "code"),
    [
        (["gates hold", "no gates"], "all gates hold", 0),
        (["no gates"], "complete; there are no gates", 0),
        (["unfinished", "gates hold"], "UNFINISHED: e0", 3),
        (["unfinished", "refused"], "REFUSED: e1; UNFINISHED: e0", 2),
        (["not compared"], "NOT COMPARED: e0", 2),
        (["unfinished", "not trusted", "gate tripped"], "GATE TRIPPED: e2; NOT TRUSTED: e1; UNFINISHED: e0", 1),
    ],
)
def test_a_night_in_short_names_what_did_not_do_well(verdicts: list[str], says: str, code: int) -> None:
    """The worst first; the exit code is its."""
    entries = [one(verdict, entry=f"e{place}") for place, verdict in enumerate(verdicts)]
    assert (verdict_of(entries), exit_code_of(entries)) == (says, code)


def test_a_gate_that_tripped_stands_above_what_else_is_wrong() -> None:
    assert [worst_of(codes) for codes in ([], [0], [0, 3], [3, 2], [2, 1, 3])] == [0, 0, 3, 2, 1]


def test_an_entry_without_a_comparison_has_no_change() -> None:
    assert main_change(one()) is None
