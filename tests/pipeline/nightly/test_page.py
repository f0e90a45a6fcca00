"""The page of the history says what the records say; what they hold is text, never a part of the page."""

from typing import Any

import pytest

from smoothcert.pipeline.nightly import page as module
from smoothcert.pipeline.nightly.page import html_of
from smoothcert.pipeline.nightly.records import AcceptanceRecord, ChangeRecord, CostRecord, EntryRecord
from smoothcert.workers.runs.records import CertifiedRecord, FiguresRecord
from tests.helpers.html_tags import Tags
from tests.helpers.nights import recorded

ATTACK = "<script>alert(1)</script>"
pytestmark = pytest.mark.usefixtures("no_curves")


def an_entry(entry: str = "small", **fields: Any) -> EntryRecord:
    figures = FiguresRecord(
        images=10,
        clean_accuracy=0.9,
        smoothed_accuracy=0.8,
        certified=(CertifiedRecord(patch=(4, 4), exact=0.612, margin=0.5),),
    )
    return EntryRecord(**{
        "entry": entry,
        "job": "j",
        "run_id": "1" * 16,
        "state": "complete",
        "verdict": "gates hold",
        "sentence": f"{entry}: gates hold",
        "figures": figures,
        "baseline": "0" * 16,
        "changes": (ChangeRecord(measure="certified", patch=(4, 4), rule="exact", lost=1234, gained=5),),
        "cost": CostRecord(computed=1, adopted={"2" * 16: 19}, seconds=61.0),
        "report": "reports/N/small/report.html",
        "comparison": "reports/N/small/compare.html",
    } | fields)  # fmt: skip


def accepted(run_id: str = "1" * 16, entry: str = "small", suite: str = "night") -> AcceptanceRecord:
    return AcceptanceRecord(suite=suite, entry=entry, run_id=run_id, at="2026-11-01T00:00:00+00:00", by="accept")


def rows_of(text: str) -> list[str]:
    """The texts of the rows of the table."""
    rows = text.replace("</t", " </t").partition("<tbody>")[2].split("</tr>")[:-1]
    return [" ".join(Tags(row).text.split()) for row in rows]


def test_the_newest_night_stands_first_and_says_its_sentences() -> None:
    """In the head, and as the first row of the table, with links and the mark of the baseline."""
    tripped = an_entry(run_id="3" * 16, verdict="gate tripped", sentence="small: GATE TRIPPED: x", report=None)
    text = html_of([recorded(1, an_entry()), recorded(2, tripped, exit_code=1)], [accepted()])
    shown = Tags(text).text
    assert "GATE TRIPPED: small" in shown
    assert "small: GATE TRIPPED: x" in shown
    assert "night of 2026-11-02 02:00 UTC, exit code 1, 1 min 0 s" in shown
    figures = "90.00 % 80.00 % 61.20 % 1,234 5 1 19 1 min 1 s"
    assert rows_of(text) == [
        f"2026-11-02 02:00 UTC small gate tripped comparison {figures} {'3' * 16}",
        f"2026-11-01 02:00 UTC small gates hold · baseline report, comparison {figures} {'1' * 16}",
    ]
    assert "run 1111111111111111, accepted" in shown


def test_what_is_unknown_is_a_dash() -> None:
    """A refused entry has no run, a first one no comparison."""
    one = EntryRecord(entry="e", job="j", state="refused", verdict="refused", sentence="e: REFUSED", problems=("why",))
    text = html_of([recorded(1, one)], [])
    assert rows_of(text) == ["2026-11-01 02:00 UTC e refused - - - - - 0 0 0 s -"]
    assert 'title="why"' in text


def test_a_page_without_nights_says_so() -> None:
    shown = Tags(html_of([], [], ["x.json is damaged"])).text
    assert "There is no night yet." in shown
    assert "left out: x.json is damaged" in shown


def test_suites_of_one_output_stand_apart() -> None:
    """Entries of one name are two; the suite of the last night comes first."""
    nights = [recorded(1, an_entry()), recorded(2, an_entry(), suite="other")]
    text = html_of(nights, [accepted(suite="other")])
    shown = Tags(text).text
    assert shown.index("other") < shown.index("small of night")
    assert [row.count("baseline") for row in rows_of(text)] == [1, 0]


def test_links_lead_below_the_page_and_nothing_comes_from_elsewhere() -> None:
    """A record is text: no scheme, no script."""
    evil = an_entry("evil", report="javascript:alert(1)", comparison="https://elsewhere/x")
    tags = Tags(html_of([recorded(1, an_entry(), evil)], [accepted()])).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"]) for tag, attributes in tags if tag == "a"]
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= set(ids)
    assert [link for link in links if not link.startswith("#")] == [
        "reports/N/small/report.html",
        "reports/N/small/compare.html",
        "javascript%3Aalert%281%29",
        "https%3A//elsewhere/x",
    ]
    assert not [attributes for _, attributes in tags if "src" in attributes]


def test_a_script_in_a_name_does_nothing() -> None:
    """In names of suite and entry, a run id, a sentence, a problem, a damaged record."""
    one = an_entry(ATTACK, sentence=ATTACK, problems=(ATTACK,), run_id=ATTACK, verdict="gate tripped")
    night = recorded(1, one, suite=ATTACK, exit_code=1)
    text = html_of([night], [accepted(ATTACK, ATTACK, ATTACK)], [ATTACK])
    tags = Tags(text).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 10


def test_a_page_about_very_many_nights_shows_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NIGHTS", 2)
    text = html_of([recorded(day, an_entry()) for day in (1, 2, 3)], [])
    assert [row[:10] for row in rows_of(text)] == ["2026-11-03", "2026-11-02"]
    assert "The newest 2 of 3 nights are shown; the records have all." in Tags(text).text


def test_the_texts_of_the_plots_say_what_they_show() -> None:
    """For those who cannot see them."""
    tags = Tags(html_of([recorded(1, an_entry())], [])).tags
    labels = [attributes["aria-label"] for tag, attributes in tags if tag == "figure"]
    assert labels == [
        "Accuracy of small by night. Last: clean 90.00 %, smoothed 80.00 %, certified 4 x 4 61.20 %",
        "Images of small gained and lost since the baseline, by night: at most 5 gained and 1,234 lost",
        "Cost of small by night: 1 shard computed and 19 taken over in 1 night, 1 min 1 s",
    ]
