"""The page shows every text as it is, and asks nothing of the network."""

import re
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.report import page
from smoothcert.pipeline.report.page import headline_of, html_of, markdown_of
from smoothcert.pipeline.report.report import Report, report_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.html_tags import Tags
from tests.helpers.judged_runs import CLASSES, image, judged_run
from tests.helpers.masked_runs import KINDS, masked_run
from tests.helpers.studies import attack

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


CLOSE = [0] * 7 + [1] * 5


def test_the_headline_names_both_bounds_of_the_pages_patch(tmp_path: Path) -> None:
    """Only if attacks tried this patch; the figures are those of the bracket."""
    shards = {"a.tar": [image("sure", [0] * 12), *(image(str(number), CLOSE) for number in range(4))]}
    run = judged_run(tmp_path, shards)
    attack(run, {"0": True, "1": False})
    report = report_of(run, side=2)
    assert report.bracket is not None
    low, high = (f"{100 * one:.2f}" for one in report.bracket.upper[1:])
    assert headline_of(report)[-1] == (
        "Under attack: robust accuracy against a 2 x 2 patch is between 20.00 % (certified) and 60.00 % (95 % interval "
        f"{low} to {high} %); attacks tried 2 of the 4 images that are right and not certified, and 1 fell."
    )
    assert len(headline_of(report_of(run, side=3))) == 3
    attack(run, {"sure": False}, (1, 1))
    assert headline_of(report_of(run, side=1))[-1] == (
        "No attack with a 1 x 1 patch tried any of the 4 images that are right and not certified."
    )


def test_without_labels_the_bounds_are_of_predictions(tmp_path: Path) -> None:
    run = judged_run(tmp_path, {"a.tar": [image("0", CLOSE, None)]}, images={"shards": "unused", "label": None})
    attack(run, {"0": True})
    report = report_of(run, side=2)
    assert headline_of(report)[-1] == (
        "Under attack: robust share of predictions that stay against a 2 x 2 patch is between 0.00 % (certified) and "
        "0.00 %; attacks tried 1 of the 1 predictions that are not certified, and 1 fell."
    )
    assert "share that stays under attack" in html_of(report)


def test_patches_that_succeeded_are_shown(run: Path) -> None:
    """The picture with the place, the patch, what is predicted without and with it; Markdown has the words."""
    opened = open_run(str(run))
    images = opened.images()
    key = next(row["key"] for row in images.to_pylist() if row["label"] == row["prediction"] is not None)
    before = Tags(html_of(report_of(opened, side=2))).tags
    attack(opened, {key: True}, (2, 3))
    report = report_of(opened, side=2)
    text = html_of(report, ["cat", "dog", "owl"])
    (one,) = report.fallen
    names = ["0 (cat)", "1 (dog)", "2 (owl)"]
    words = f"{names[one.prediction]} becomes {names[one.becomes]}"
    sentence = "2 x 3 patch at top 1, left 2, found by apgd-ce; the certificate lacks 3 votes there"
    assert words in Tags(text).text
    assert sentence in Tags(text).text
    assert f"- {words}: {sentence} (" in markdown_of(report, ["cat", "dog", "owl"])
    tags = Tags(text).tags
    pictures = [str(attributes["alt"]) for tag, attributes in tags if tag == "img"]
    assert f"the image with the patch, predicted as {names[one.becomes]}" in pictures
    assert "the patch, 2 x 3 pixels" in pictures
    assert "left:12.50%;top:6.25%;width:18.75%;height:12.50%" in {attributes.get("style") for _, attributes in tags}
    assert "#attack" in {attributes.get("href") for _, attributes in tags}
    assert "#attack" not in {attributes.get("href") for _, attributes in before}


def test_patches_of_the_pages_size_go_before_others(tmp_path: Path) -> None:
    """At most as many as other images; the table has all sizes."""
    run = judged_run(tmp_path, {"a.tar": [image(str(number), CLOSE) for number in range(20)]})
    attack(run, {"0": True}, (1, 3))
    attack(run, {str(number): True for number in range(20)}, (2, 2))
    assert [one.box.width for one in report_of(run, side=2).fallen] == [2] * 12
    assert {one.box.width for one in report_of(run, side=1, exhibits=20).fallen} == {2, 3}
    text = markdown_of(report_of(run, side=1))
    assert "\n| 1 x 3 | 0.00 % | 0.00 % (0.00 to 97.50 %) | 1 of 20 | 1 |\n" in text
    assert "\n| 2 x 2 | 0.00 % | 0.00 % | 20 of 20 | 20 |\n" in text
    text = html_of(report_of(run, side=2))
    assert text.count("No picture: its tar is out of reach") >= 12
    assert text.count('class="enlarged"') == 12


def test_a_certified_image_that_fell_heads_the_page(tmp_path: Path) -> None:
    run = judged_run(tmp_path, {"a.tar": [image("0", [0] * 12)]})
    attack(run, {"0": True})
    report = report_of(run)
    assert "1 certified image fell to a 2 x 2 patch (a.tar 0)" in markdown_of(report).splitlines()[2].replace("*", "")
    assert re.search(r'<p class="bad">1 certified image fell', html_of(report))


@pytest.mark.parametrize(
    ("kind", "threat"),
    [
        ("square", "a 3 x 3 patch shows, wherever it lies"),
        ("rectangle", "a 2 x 5 patch shows, wherever it lies"),
        ("area", "one of all rectangles of up to 6 pixels shows, wherever it lies"),
        ("two patches", "2 patches of 2 x 2 show, wherever they lie"),
    ],
)
def test_a_page_of_masks_says_what_they_certify(tmp_path: Path, kind: str, threat: str) -> None:
    """By double masking: recovery, against what the masks were made for, and detection with its false alarms."""
    run = masked_run(tmp_path, KINDS[kind], count=12)
    report = report_of(run)
    text = " ".join(headline_of(report))
    side = report.figures.side
    assert "By double masking, it is right on " in text
    assert f"whatever {threat} (exact rule; double masking against " in text
    assert f"without an alarm, whatever {threat} (exact rule)." in text
    own = report.figures.own_threat["recovery"]["exact"]
    assert f"Certified: {100 * own.value:.2f} % of 12 images" in text
    assert text.count(f"Against a {side} x {side} patch: ") == (0 if kind == "square" else 2)
    assert f"{KINDS[kind]['per_axis']} masks per axis, fill {KINDS[kind].get('fill', 'mean')}; " in text
    assert report.figures.detection is not None
    alarms = report.figures.detection.false_alarms
    assert f"False alarms, without an attack: {100 * alarms.value:.2f} % of 12 images" in text
    for page_text in (html_of(report), markdown_of(report)):
        assert "moothed" not in page_text
        assert "margin rule" not in page_text
    markdown = markdown_of(report)
    assert f"| detection {side} x {side}, exact rule |" in markdown
    assert ("left blank" in markdown) == (kind in ("area", "two patches"))
    hides = r"(1 mask hides it and is (not )?uniform|\d+ masks hide it, \d+ of them uniform)"
    assert re.search(rf"at the weakest place of a \d x \d patch, {hides}; \d+ of \d+ votes for other classes", markdown)
    assert ("One patch and two" in html_of(report)) == (kind == "two patches")


def test_a_patch_that_no_mask_hides_has_no_page(tmp_path: Path) -> None:
    """The threat of the masks is the default; a smaller square may be asked for."""
    run = masked_run(tmp_path, count=6)
    assert report_of(run).figures.side == 3
    assert report_of(run, side=2).figures.side == 2
    with pytest.raises(RequestError, match="patch 4 x 4: no mask hides it"):
        report_of(run, side=4)
