"""The page says what the terminal says; what a run holds is text, never a part of the page."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from smoothcert.manifests.gates import Gates
from smoothcert.pipeline.compare import page
from smoothcert.pipeline.compare.comparison import Comparison, compare
from smoothcert.pipeline.compare.gates import evaluate
from smoothcert.pipeline.compare.page import html_of
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.pipeline.compare.verdict import failures_of, notices_of, verdict_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.html_tags import Tags
from tests.helpers.judged_runs import CLASSES, image, judged_run
from tests.helpers.studies import attack
from tests.pipeline.compare.conftest import CLOSE, SURE, TwoRuns
from tests.pipeline.compare.test_gates import TODAY

ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def found(before_and_after: tuple[Path, Path]) -> Comparison:
    base, new = before_and_after
    return compare(open_run(str(base)), open_run(str(new)), patches=[(2, 2)])


@pytest.fixture(scope="module")
def text(found: Comparison) -> str:
    return html_of(found, names=["cat", "dog", "owl"])


def test_the_page_has_the_sentences_of_the_terminal(two_runs: TwoRuns) -> None:
    """Verdict, what tripped with the images behind it, notices."""
    found = compare(*two_runs, patches=[(2, 2)], allow=[Reason.images])
    gates = evaluate(found, Gates.model_validate({"gates": [{"metric": "errors", "max": 0.0}]}), TODAY)
    shown = Tags(html_of(found, gates)).text
    for sentence in (verdict_of(found, gates), *failures_of(found, gates), *notices_of(found)):
        assert sentence in shown
    assert "broken" in failures_of(found, gates)[0]


def test_a_lost_image_has_two_strips(found: Comparison, text: str) -> None:
    """One colour is one class in both: the votes of the first strip are those for the prediction of the base."""
    tags = Tags(text)
    strips = [attributes for tag, attributes in tags.tags if tag == "img" and attributes.get("class") == "strip"]
    pictures = [attributes for tag, attributes in tags.tags if tag == "img" and attributes.get("class") is None]
    lost = found.certified[0].lost
    assert (len(strips), len(pictures)) == (2 * lost, lost)
    votes = found.base.job.preprocess.crop
    for before, after in zip(strips[::2], strips[1::2], strict=True):
        base, new = (_counts(one["alt"]) for one in (before, after))
        assert base[1::2] == new[1::2]
        assert int(base[2]) == 0 < int(new[2]) < votes


def _counts(alt: str | None) -> Sequence[str]:
    """Votes for one class, the class, votes for the other, the class."""
    found = re.fullmatch(r"votes: (\d+) for (.*), (\d+) for (.*), 0 for others", alt or "")
    assert found
    return found.groups()


def test_names_of_classes_are_shown(text: str) -> None:
    assert re.search(r"base: \d \((cat|dog|owl)\), holds by \d+ votes?", Tags(text).text)


def test_an_image_that_has_no_votes_now_says_why(two_runs: TwoRuns) -> None:
    shown = Tags(html_of(compare(*two_runs, patches=[(2, 2)], allow=[Reason.images]))).text
    assert "new: no votes: decode_error" in shown
    assert "No picture: its tar is out of reach" in shown


def test_links_lead_somewhere_and_nothing_comes_from_elsewhere(text: str) -> None:
    tags = Tags(text).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert {str(link).removeprefix("#") for link in links} <= set(ids)
    for _, attributes in tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))


def test_a_script_in_a_name_does_nothing(tmp_path: Path) -> None:
    """In a key, a shard, the name of a run, a reason, the name of a class."""
    shard = f"{ATTACK.replace('/', '')}.tar"
    base = judged_run(tmp_path / "a", {shard: [image(ATTACK, SURE), image("b", SURE)]}, name=ATTACK)
    new = judged_run(
        tmp_path / "b", {shard: [image(ATTACK, CLOSE), image("b", None, error=ATTACK)]}, name=ATTACK, weights="1"
    )
    text = html_of(compare(base, new, patches=[(1, 1)]), names=[ATTACK] * CLASSES)
    tags = Tags(text).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6


def test_a_page_about_very_many_losses_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles say how many there are; long keys are cut."""
    monkeypatch.setattr(page, "MAX_CLASSES", 2)
    keys = [f"{number:04d}{'k' * 10_000}" for number in range(300)]
    shards = {"a.tar": [image(key, SURE, number % CLASSES) for number, key in enumerate(keys)]}
    lost = {"a.tar": [image(key, CLOSE, number % CLASSES) for number, key in enumerate(keys)]}
    images = {"shards": "unused", "label": "cls"}
    base = judged_run(tmp_path / "a", shards, images=images)
    found = compare(base, judged_run(tmp_path / "b", lost, images=images, weights="1"), patches=[(1, 1)])
    text = html_of(found)
    assert len(text) < 500_000
    shown = Tags(text).text
    assert "75 images lost a certificate of the exact rule" in shown
    assert "The first 2 of 4 classes are shown; the JSON has all." in shown


def test_without_patches_the_page_is_about_predictions(tmp_path: Path) -> None:
    base = judged_run(tmp_path / "a", {"a.tar": [image("0", SURE)]}, patches=[])
    new = judged_run(tmp_path / "b", {"a.tar": [image("0", [1] * 12)]}, patches=[], weights="1")
    shown = Tags(html_of(compare(base, new))).text
    assert "1 right prediction lost" in shown
    assert "Votes of what was lost" not in shown


def test_attacks_on_both_runs_have_a_section(tmp_path: Path) -> None:
    """Both brackets, what fell in one run alone, and what must not be; none without attacks on both."""
    shards = {"a.tar": [image(ATTACK, CLOSE), image("sure", SURE)]}
    base, new = judged_run(tmp_path / "a", shards), judged_run(tmp_path / "b", shards, weights="1")
    attack(base, {ATTACK: False, "sure": True})
    assert "#attack" not in html_of(compare(base, new))
    attack(new, {ATTACK: True, "sure": False})
    tags = Tags(html_of(compare(base, new), names=["cat", "dog", "owl", "elk"]))
    assert "#attack" in {attributes.get("href") for _, attributes in tags.tags}
    for words in (
        "base, under attack",
        "2 images fell in one run and stood in the other",
        "0 (cat) -> 1 (dog)",
        "failed: base: 1 certified image fell to a 2 x 2 patch (a.tar 1)",
    ):
        assert words in tags.text
    assert sum(tag == "script" for tag, _ in tags.tags) == 1
