"""The page shows every text as it is, and asks nothing of the network."""

import re
from pathlib import Path

import pytest

from smoothcert.pipeline.report import page
from smoothcert.pipeline.report.page import headline_of, html_of, markdown_of
from smoothcert.pipeline.report.report import Report, report_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.html_tags import Tags
from tests.helpers.judged_runs import CLASSES, image, judged_run

ATTACK = "<script>alert(1)</script>"


@pytest.fixture
def hostile(tmp_path: Path) -> Report:
    """A name, a key, a shard and a reason that would be a script."""
    images = [
        image(ATTACK, [0] * 12),
        image("|x", None) | {"error": ATTACK},
        image('"><img src=x onerror=alert(1)>', [0] * 12),
    ]
    return report_of(judged_run(tmp_path, {f"{ATTACK.replace('/', '')}.tar": images}, name=ATTACK))


def test_a_script_in_a_name_does_nothing(hostile: Report) -> None:
    """In the page there is the page's own script alone; Markdown has no element at all."""
    text = html_of(hostile, [ATTACK] * CLASSES)
    tags = Tags(text).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert "<" not in markdown_of(hostile, [ATTACK] * CLASSES)


def test_the_page_asks_nothing_of_the_network(finished: Path) -> None:
    """Every source is in the page; links lead within it."""
    tags = Tags(html_of(report_of(open_run(str(finished))))).tags
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href", "data", "action", "poster"):
            if (value := attributes.get(name)) is not None:
                assert value.startswith(("data:", "#")), (tag, value)
    assert not re.search(r"url\((?!#)|@import", html_of(report_of(open_run(str(finished)))))


def test_ids_are_unique_and_links_lead_somewhere(finished: Path) -> None:
    tags = Tags(html_of(report_of(open_run(str(finished))))).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert {str(link).removeprefix("#") for link in links} <= set(ids)


def test_every_picture_has_a_text(finished: Path) -> None:
    tags = Tags(html_of(report_of(open_run(str(finished))))).tags
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) > 4
    assert all(attributes.get("alt") for attributes in pictures)


def test_the_headline_tells_clean_smoothed_and_certified_apart(finished: Path) -> None:
    """With threat, rule and token mode."""
    clean, smoothed, certified = headline_of(report_of(open_run(str(finished)), side=2))
    assert clean.startswith("Without an attack, the whole-image classifier is right on ")
    assert smoothed.startswith("Smoothed over ablations, it is right on ")
    assert certified.startswith("Certified: ")
    for part in ("2 x 2 patch", "exact rule", "column 4", "hidden tokens are dropped", "95 % interval"):
        assert part in certified


def test_a_table_of_very_many_classes_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least certified are shown; a sentence says how many there are."""
    monkeypatch.setattr(page, "MAX_CLASSES", 2)
    images = [image(str(label), [label] * 12 if label else [1] * 12, label) for label in range(4)]
    text = markdown_of(report_of(judged_run(tmp_path, {"a.tar": images})))
    assert "The 2 least certified of 4 classes are shown; report.json has all." in text
    assert len(re.findall(r"^\| \d \| 1 \|", text, re.MULTILINE)) == 2


def test_markdown_has_no_link_and_no_line_of_a_name(tmp_path: Path) -> None:
    """A picture would be fetched from the network; a new line would end the table."""
    names = ["![x](http://example.org/x.png)\n# heading"] * CLASSES
    made = judged_run(tmp_path, {"a.tar": [image("`k`\n# key", [0] * 12), image("1", [1] * 12)]}, name="n\n# run")
    text = markdown_of(report_of(made), names)
    assert not re.search(r"(?<!\\)\[|(?<!\\)`k", text)
    assert "example.org" in text
    headings = re.findall(r"^#.*", text, re.MULTILINE)
    assert len([one for one in headings if re.search("heading|key|^# run", one)]) == 0


def test_very_long_texts_are_cut(tmp_path: Path) -> None:
    """Names of classes, keys, reasons, the job's list of tars: the page stays small."""
    failed = [image(f"{number}", None, error=f"{number} {'e' * 200_000}") for number in range(30)]
    images = [*failed, image("k" * 10**6, [0] * 12), image("w", [1] * 12)]
    shards = [f"s3://bucket/{number:0100d}.tar" for number in range(10_000)]
    report = report_of(judged_run(tmp_path, {"a.tar": images}, images={"shards": shards}))
    text = html_of(report, ["n" * 10**6] * CLASSES)
    assert len(text) < 500_000
    assert f"{report.run.url}/run.json" in text
    assert len(markdown_of(report, ["n" * 10**6] * CLASSES)) < 100_000
