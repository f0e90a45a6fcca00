"""The report as a page: HTML that needs no network, and Markdown with the same texts, but no job file.

Templates escape every text; SVG of plots.py is the only thing they take as it is.

Not covered: the figures (figures.py, sample.py, gallery.py).
"""

import base64
import io
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL import Image

from smoothcert.manifests.names import printable
from smoothcert.pipeline.console.looks import DASH, markdown_text, number_of, percent, plain, span
from smoothcert.pipeline.overview.runs_list import ablation_in_words
from smoothcert.pipeline.report import plots
from smoothcert.pipeline.report.figures import MARGINS, ClassFigures, Share
from smoothcert.pipeline.report.gallery import Exhibit
from smoothcert.pipeline.report.report import Report
from smoothcert.pipeline.report.sample import SampleFigures

MAX_CLASSES, MAX_ERRORS = 2000, 50
"""Rows of tables; JSON has all."""
MAX_CHARACTERS, MAX_JOB_CHARACTERS = 500, 100_000
"""Of a reason or a key, and of the job."""
PICTURE_PX = 224
STRIP_PX = 1000
"""Widths in pixels, at most: of pictures and squares of votes, of strips of votes."""
_PREDICTED, _BECOMES, _OTHER = (47, 127, 214), (194, 98, 10), (138, 138, 138)
_FAINT = 0.25  # opacity of a vote without margin

_FALLS_TO = "falls most often to"
_TEXTS = ("class", _FALLS_TO)  # columns of text

Name = Callable[[int | None], str]


def html_of(report: Report, names: Sequence[str] = ()) -> str:
    """The page; `names` are those of the classes."""
    page = _page_of(report, names)
    page |= {"curve": plots.certified_curve(report.figures)}
    if report.sample:
        what = "certified accuracy, %" if report.figures.labelled else "certified share, %"
        page |= {
            "rectangles": plots.rectangles_map(report.sample, what),
            "patches": plots.patches_curve(report.sample, what),
            "atlas": plots.atlas_map(report.sample),
        }
    return _environment(escaped=True).get_template("report.html.j2").render(page)


def markdown_of(report: Report, names: Sequence[str] = ()) -> str:
    """The texts and tables of the page."""
    return _environment(escaped=False).get_template("report.md.j2").render(_page_of(report, names))


def _environment(*, escaped: bool) -> Environment:
    def load(name: str) -> str:
        return (files("smoothcert.pipeline.report") / "templates" / name).read_text(encoding="utf-8")

    environment = Environment(autoescape=escaped, loader=FunctionLoader(load), undefined=StrictUndefined)  # noqa: S701
    environment.filters["md"] = markdown_text
    return environment


def _page_of(report: Report, names: Sequence[str]) -> dict[str, Any]:
    """What the templates show."""
    figures = report.figures

    def name(number: int | None) -> str:
        if number is None:
            return "no class"
        return f"{number} ({printable(names[number])})" if number < len(names) else str(number)

    page: dict[str, Any] = {
        "name": plain(report.run.name)[:MAX_CHARACTERS],
        "marks": list(_marks(report)),
        "headline": list(headline_of(report)),
        "images": f"{figures.images:,}",
        "labelled": figures.labelled,
        "shares": [_share_row(what, share) for what, share in shares_of(report)],
        "curve_alt": _curve_alt(report),
        "sample": _sample_note(report),
        "galleries": [
            ("fragile", "The most fragile images", [_exhibit(one, name) for one in report.fragile]),
            ("sturdy", "The sturdiest images", [_exhibit(one, name) for one in report.sturdy]),
        ],
        "side": figures.side,
        "fragile": [
            (f"{limit:g}", f"{count:,}", percent(count / figures.votes if figures.votes else None))
            for limit, count in zip(MARGINS, figures.fragile, strict=True)
        ],
        "provenance": list(_provenance(report)),
        "job": _job_text(report),
        "commands": "smoothcert certify job.yaml\n" + _report_command(report),
    }
    page |= _class_parts(report, name) | _error_parts(report)
    if report.sample is not None:
        page |= _sample_parts(report.sample)
    return page | {"sections": list(_sections(page))}


def _sections(page: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The sections that the page has: id and title of each."""
    yield "figures", "figures"
    yield "size", "patch size"
    if page["classes"]:
        yield "classes", "classes"
    if page["sample"]:
        yield "atlas", "weakest places"
    yield from ((key, title.lower()) for key, title, exhibits in page["galleries"] if exhibits)
    yield "errors", "errors"
    yield "provenance", "provenance"


def _class_parts(report: Report, name: Name) -> dict[str, Any]:
    everyone, titles = report.figures.classes, _class_titles(report)
    shown = sorted(everyone, key=lambda one: (one.certified / one.images, one.number))[:MAX_CLASSES]
    left_out = f"The {len(shown):,} least certified of {len(everyone):,} classes are shown; report.json has all."
    return {
        "class_titles": [(title, title in _TEXTS) for title in titles],
        "classes": [_class_cells(one, titles, name) for one in shown],
        "classes_left_out": left_out if len(shown) < len(everyone) else "",
    }


def _error_parts(report: Report) -> dict[str, Any]:
    errors = report.figures.errors
    more = len(errors) - MAX_ERRORS
    return {
        "errors": [
            (status, plain(error or "")[:MAX_CHARACTERS], f"{count:,}") for status, error, count in errors[:MAX_ERRORS]
        ],
        "errors_left_out": f"and {more:,} more reasons; report.json has all." if more > 0 else "",
    }


def _sample_parts(sample: SampleFigures) -> dict[str, Any]:
    two_curves = zip(sample.sides, sample.one, sample.two, strict=True)
    return {
        "rectangles_alt": f"Map of {len(sample.heights)} heights and {len(sample.widths)} widths: certified share "
        f"from {percent(sample.rectangles.max())} to {percent(sample.rectangles.min())}",
        "patches_alt": "Certified share by side of the patch: "
        + "; ".join(
            f"{side} pixels: one patch {percent(one.value)}, two {percent(two.value)}" for side, one, two in two_curves
        ),
        "atlas_alt": f"Map of the mean slack by place of a {sample.atlas_side} x {sample.atlas_side} patch: from "
        f"{sample.atlas.min():.1f} to {sample.atlas.max():.1f} votes",
        "atlas_note": _atlas_note(sample),
    }


def _marks(report: Report) -> Sequence[str]:
    run = report.run
    marks = []
    if not report.complete:
        marks.append(f"UNFINISHED: {report.figures.files:,} of {number_of(len(run.tasks), 'shard')}")
    if run.partial:
        marks.append(f"PARTIAL: the first {run.job.images.limit:,} images")
    return marks


def headline_of(report: Report) -> Sequence[str]:
    """The main figures in sentences, with threat, rule and token mode."""
    figures, job = report.figures, report.run.job
    tokens = "hidden tokens are dropped" if job.model.masked_tokens == "drop" else "hidden tokens are kept, black"
    sentences = []
    if figures.clean is not None:
        sentences.append(f"Without an attack, the whole-image classifier is right on {_with_interval(figures.clean)}.")
    if figures.smoothed is not None:
        sentences.append(f"Smoothed over ablations, it is right on {_with_interval(figures.smoothed)}.")
    share, side = figures.certified["exact"][figures.side - 1], figures.side
    stays = "are right and stay right" if figures.labelled else "keep their prediction, right or wrong,"
    sentences.append(
        f"Certified: {_with_interval(share)} {stays} whatever a {side} x {side} patch shows, wherever it lies (exact "
        f"rule; {ablation_in_words(job.ablation)}; {tokens})."
    )
    return sentences


def _with_interval(share: Share) -> str:
    low, high = share.interval
    return f"{percent(share.value)} of {share.images:,} images (95 % interval {100 * low:.2f} to {100 * high:.2f} %)"


def shares_of(report: Report) -> Sequence[tuple[str, Share]]:
    """Clean, smoothed and certified shares: the certified ones for each patch of the job and both rules."""
    figures = report.figures
    rows = [("clean", figures.clean), ("smoothed", figures.smoothed)]
    for side in sorted({figures.side, *report.run.job.patches}):
        for rule, shares in figures.certified.items():
            rows.append((f"certified {side} x {side}, {rule} rule", shares[side - 1]))
    return [(name, share) for name, share in rows if share is not None]


def _share_row(what: str, share: Share) -> dict[str, str]:
    low, high = share.interval
    interval = f"{100 * low:.2f} to {100 * high:.2f} %"
    return {"what": what, "count": f"{share.count:,}", "share": percent(share.value), "interval": interval}


def _curve_alt(report: Report) -> str:
    exact = report.figures.certified["exact"]
    sides = sorted({round(side) for side in np.geomspace(1, len(exact), 6)})
    return "Certified share by side of a square patch, exact rule: " + "; ".join(
        f"{side} pixels: {percent(exact[side - 1].value)}" for side in sides
    )


def _sample_note(report: Report) -> str:
    sample = report.sample
    if sample is None:
        return ""
    of_class = "" if sample.of_class is None else f" of class {sample.of_class}"
    bound = " The share against two patches is a lower bound." if sample.two_is_bound else ""
    return (
        f"Rectangles, two patches and the map of weak places are of a sample: {number_of(sample.images, 'image')} with "
        f"votes{of_class}, drawn with seed {sample.seed}, by the exact rule.{bound}"
    )


def _atlas_note(sample: SampleFigures) -> str:
    row, column = np.unravel_index(sample.atlas.argmin(), sample.atlas.shape)
    return (
        f"By how many votes certificates hold, on average over the sample of {number_of(sample.images, 'image')}, if a "
        f"{sample.atlas_side} x {sample.atlas_side} patch lies there. The weakest place: top {sample.tops[row]}, left "
        f"{sample.lefts[column]} ({sample.atlas.min():.1f} votes)."
    )


def _class_titles(report: Report) -> list[str]:
    """The columns of the table of classes; without labels nothing is right or wrong."""
    figures, side = report.figures, report.figures.side
    titles = ["class", "images", f"certified {side} x {side}"]
    if figures.labelled:
        titles[2:2] = ["clean", "smoothed"] if figures.with_clean else ["smoothed"]
        titles.append(_FALLS_TO)
    return titles


def _class_cells(one: ClassFigures, titles: Sequence[str], name: Name) -> list[dict[str, Any]]:
    falls = "" if one.falls_to is None else f"{name(one.falls_to)}, {number_of(one.fallen, 'image')}"
    cells = {
        "class": (str(one.number), name(one.number)),
        "images": (str(one.images), f"{one.images:,}"),
        "clean": _share_cell(one.clean, one.images),
        "smoothed": _share_cell(one.smoothed, one.images),
        _FALLS_TO: (falls, falls),
    }
    certified = _share_cell(one.certified, one.images)
    chosen = ((title, cells.get(title, certified)) for title in titles)
    return [{"value": value, "text": text, "is_text": title in _TEXTS} for title, (value, text) in chosen]


def _share_cell(count: int | None, images: int) -> tuple[str, str]:
    """The value by which a share is sorted, and its text."""
    return ("", DASH) if count is None else (f"{count / images:.6f}", percent(count / images))


def _exhibit(one: Exhibit, name: Name) -> dict[str, Any]:
    can = "can become" if one.slack < 0 else "would be nearest to"
    lead = f"{abs(one.slack):,} {'vote' if abs(one.slack) == 1 else 'votes'}"
    slack = f"lacks {lead}" if one.slack < 0 else f"holds by {lead}"
    largest = f"certified up to {one.largest} x {one.largest}" if one.largest else "certified against no patch"
    picture = one.picture.image
    crop = 0 if picture is None else picture.width
    counts = {
        "for the prediction": int((one.votes == one.prediction).sum()),
        f"for {name(one.becomes)}": int((one.votes == one.becomes).sum()),
    }
    rest = len(one.votes) - sum(counts.values())
    strip, square = _strip(one)
    return {
        "title": name(one.prediction),
        "text": f"{largest}; at its weakest place the certificate against {one.side} x {one.side} {slack}, and the "
        f"prediction {can} {name(one.becomes)}",
        "which": plain(f"{one.shard}: {one.key}")[:MAX_CHARACTERS],
        "picture": "" if picture is None else _data_url(_smaller(picture), "JPEG", quality=80),
        "reason": plain(one.picture.reason)[:MAX_CHARACTERS],
        "alt": f"the image, predicted as {name(one.prediction)}",
        "box": ""
        if not crop
        else f"left:{100 * one.left / crop:.2f}%;top:{100 * one.top / crop:.2f}%;"
        f"width:{100 * one.side / crop:.2f}%;height:{100 * one.side / crop:.2f}%",
        "strip": _data_url(strip, "PNG"),
        "square": square,
        "strip_alt": "votes: "
        + ", ".join(f"{count} {what}" for what, count in counts.items())
        + f", {rest} for others",
    }


def _strip(one: Exhibit) -> tuple[Image.Image, bool]:
    """A pixel per vote, in the order of the offsets: class as colour, margin as opacity. Blocks make a square."""
    colours = np.full((len(one.votes), 4), (*_OTHER, 255), np.float64)
    colours[one.votes == one.becomes, :3] = _BECOMES
    colours[one.votes == one.prediction, :3] = _PREDICTED
    usual = float(np.quantile(one.margins, 0.9)) or 1.0
    colours[:, 3] = 255 * (_FAINT + (1 - _FAINT) * np.clip(one.margins / usual, 0, 1))
    side = math.isqrt(len(colours))
    square = one.is_grid and side * side == len(colours)
    shape = (side, side, 4) if square else (1, len(colours), 4)
    strip = Image.fromarray(colours.round().astype(np.uint8).reshape(shape), "RGBA")
    strip.thumbnail((PICTURE_PX, PICTURE_PX) if square else (STRIP_PX, 1))
    return strip, square


def _smaller(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    return picture


def _data_url(image: Image.Image, kind: str, **options: int) -> str:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def _provenance(report: Report) -> Sequence[tuple[str, str]]:
    run, figures = report.run, report.figures
    job, record = run.job, run.record
    size = sum(shard.size for shard in record.shards)
    made_by = sorted(figures.environments.items(), key=lambda one: -one[1])[:MAX_ERRORS]
    tokens = {"drop": "hidden tokens dropped", "keep": "hidden tokens kept, black"}[job.model.masked_tokens]
    return [
        ("run", f"{run.run_id} in {plain(run.url)}, begun {record.created or 'unknown'}"),
        ("weights", f"{plain(job.model.checkpoint)}, SHA-256 {run.checkpoint_sha256}"),
        ("network", f"{job.model.architecture}, {job.model.classes:,} classes, {job.model.dtype}, {tokens}"),
        ("ablations", ablation_in_words(job.ablation)),
        (
            "data",
            f"{number_of(len(record.shards), 'shard')}, {size / 1e6:,.0f} MB, labels: {job.images.label or 'none'}",
        ),
        ("files", f"{figures.files:,} of {len(run.tasks):,} published, {span(figures.seconds)} of work on shards"),
        ("code", ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))),
        *((f"made by ({number_of(count, 'file')})", environment) for environment, count in made_by),
    ]


def _job_text(report: Report) -> str:
    """The job as YAML; a list of very many tars would make the page large."""
    job = report.run.job.model_dump(mode="json", exclude_defaults=True)
    if len(str(job)) > MAX_JOB_CHARACTERS:
        return f"# The job is too long for this page. It is the key `job` of {plain(report.run.url)}/run.json."
    return yaml.safe_dump(job, sort_keys=False, allow_unicode=True)


def _report_command(report: Report) -> str:
    sample, options = report.sample, ["--patch", str(report.figures.side)]
    options += [] if sample is None else ["--sample", str(sample.images), "--seed", str(sample.seed)]
    options += [] if sample is None or sample.of_class is None else ["--class", str(sample.of_class)]
    return shlex.join(["smoothcert", "report", report.run.url, *options])
