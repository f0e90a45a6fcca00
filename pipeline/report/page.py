"""The report as a page: HTML that needs no network, and Markdown with the same texts, but no job file.

SVG of plots.py is the only thing that the template takes as it is.

Not covered: the figures (figures.py, sample.py, gallery.py), what pages share (pipeline/pages).
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from smoothcert.manifests.ablation import Area, MaskAblation, ablation_in_words
from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import Certificate, RuleName
from smoothcert.pipeline.bracket import Bracket
from smoothcert.pipeline.console.looks import DASH, number_of, percent, plain, span
from smoothcert.pipeline.pages.class_names import name_of
from smoothcert.pipeline.pages.drawing import patch_parts, picture_parts, strip_parts
from smoothcert.pipeline.pages.exhibits import Exhibit, masks_in_words
from smoothcert.pipeline.pages.patches import Success
from smoothcert.pipeline.pages.rendering import render, short
from smoothcert.pipeline.report import plots
from smoothcert.pipeline.report.figures import MARGINS, ClassFigures, Share
from smoothcert.pipeline.report.gallery import Entry
from smoothcert.pipeline.report.report import Report
from smoothcert.pipeline.report.sample import SampleFigures
from smoothcert.workers.runs.votes_table import ABSENT

MAX_CLASSES, MAX_ERRORS = 2000, 50
"""Rows of tables; JSON has all."""
MAX_JOB_CHARACTERS = 100_000

_FALLS_TO = "falls most often to"
_TEXTS = ("class", _FALLS_TO)  # columns of text


def html_of(report: Report, names: Sequence[str] = ()) -> str:
    """The page; `names` are those of the classes."""
    page = _page_of(report, names)
    for gallery, entries in zip(page["galleries"], (report.fragile, report.sturdy), strict=True):
        for card, entry in zip(gallery["cards"], entries, strict=True):
            card |= _drawn(entry, names)
    for card, success in zip(page["fallen"], report.fallen, strict=True):
        card |= patch_parts(success, names)
    page["curve"] = plots.certified_curve(report.figures, report.brackets)
    if report.sample:
        what = "certified accuracy, %" if report.figures.labelled else "certified share, %"
        page |= {
            "rectangles": plots.rectangles_map(report.sample, what),
            "patches": plots.patches_curve(report.sample, what) if report.sample.sides else "",
            "atlas": plots.atlas_map(report.sample, _units(report.run.job)),
        }
    return render(__package__, "report.html.j2", page)


def markdown_of(report: Report, names: Sequence[str] = ()) -> str:
    """The texts and tables of the page."""
    return render(__package__, "report.md.j2", _page_of(report, names))


def _page_of(report: Report, names: Sequence[str]) -> dict[str, Any]:
    """The texts that both templates show."""
    figures = report.figures
    page: dict[str, Any] = {
        "name": short(report.run.name),
        "marks": [*_marks(report), *report.problems],
        "headline": list(headline_of(report)),
        "images": number_of(figures.images, "image"),
        "labelled": figures.labelled,
        "shares": [_share_row(what, share) for what, share in shares_of(report)],
        "curve_alt": _curve_alt(report),
        "brackets": [_bracket_row(one) for one in report.brackets],
        "bracket_titles": [(title, False) for title in ("patch", "certified", "under attack", "attacked", "fell")],
        "brackets_note": _brackets_note(report.figures.labelled),
        "fallen": [_fallen_card(one, names, of_masks=_has_masks(report.run.job)) for one in report.fallen],
        "sample": _sample_note(report),
        "galleries": [
            {"id": "fragile", "title": "The most fragile images", "cards": _cards(report.fragile, names)},
            {"id": "sturdy", "title": "The sturdiest images", "cards": _cards(report.sturdy, names)},
        ],
        "side": figures.side,
        "masks": _has_masks(report.run.job),
        "fragile_votes": [
            (f"{limit:g}", f"{count:,}", percent(count / figures.votes if figures.votes else None))
            for limit, count in zip(MARGINS, figures.fragile, strict=True)
        ],
        "provenance": list(_provenance(report)),
        "job": _job_text(report),
        "commands": "smoothcert certify job.yaml\n" + _report_command(report, names),
    }
    page |= _class_parts(report, names) | _error_parts(report)
    if report.sample is not None:
        page |= _sample_parts(report.sample, _units(report.run.job))
    return page | {"sections": list(_sections(page))}


def _sections(page: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The sections that the page has: id and title of each."""
    yield "figures", "figures"
    yield "size", "patch size"
    if page["brackets"]:
        yield "attack", "under attack"
    if page["classes"]:
        yield "classes", "classes"
    if page["sample"]:
        yield "atlas", "weakest places"
    yield from ((gallery["id"], gallery["title"].lower()) for gallery in page["galleries"] if gallery["cards"])
    yield "errors", "errors"
    yield "provenance", "provenance"


def _class_parts(report: Report, names: Sequence[str]) -> dict[str, Any]:
    everyone, titles = report.figures.classes, _class_titles(report)
    shown = sorted(everyone, key=lambda one: (one.certified / one.images, one.number))[:MAX_CLASSES]
    left_out = f"The {len(shown):,} least certified of {len(everyone):,} classes are shown; report.json has all."
    return {
        "class_titles": [(title, title in _TEXTS) for title in titles],
        "classes": [_class_cells(one, titles, names) for one in shown],
        "classes_left_out": left_out if len(shown) < len(everyone) else "",
    }


def _error_parts(report: Report) -> dict[str, Any]:
    errors = report.figures.errors
    more = len(errors) - MAX_ERRORS
    return {
        "errors": [(status, short(error or ""), f"{count:,}") for status, error, count in errors[:MAX_ERRORS]],
        "errors_left_out": f"and {more:,} more reasons; report.json has all." if more > 0 else "",
    }


def _sample_parts(sample: SampleFigures, units: str) -> dict[str, Any]:
    two_curves = [
        f"{side} pixels: one patch {percent(one.value)}, two {percent(two.value)}"
        for side, one, two in zip(sample.sides, sample.one, sample.two, strict=True)
    ]
    blank = "; blank where no mask hides the rectangle at some place" if np.isnan(sample.rectangles).any() else ""
    return {
        "rectangles_alt": f"Map of {len(sample.heights)} heights and {len(sample.widths)} widths: certified share "
        f"from {percent(np.nanmax(sample.rectangles))} to {percent(np.nanmin(sample.rectangles))}{blank}",
        "patches_alt": "Certified share by side of the patch: " + "; ".join(two_curves) if two_curves else "",
        "atlas_alt": f"Map of the mean slack by place of a {sample.atlas_side} x {sample.atlas_side} patch: from "
        f"{sample.atlas.min():.1f} to {sample.atlas.max():.1f} {units}",
        "atlas_note": _atlas_note(sample, units),
    }


def _has_masks(job: Job) -> bool:
    return isinstance(job.ablation, MaskAblation)


def _predicted(job: Job) -> str:
    """The name of the accuracy of predictions."""
    return "double masking" if _has_masks(job) else "smoothed"


def _units(job: Job) -> str:
    """What the slack of a certificate counts."""
    return "masks" if _has_masks(job) else "votes"


def _method(job: Job) -> str:
    """How the prediction is made, and what hidden pixels become."""
    dropped, ablation = job.model.masked_tokens == "drop", job.ablation
    if not isinstance(ablation, MaskAblation):
        tokens = "hidden tokens are dropped" if dropped else "hidden tokens are kept, black"
        return f"{ablation_in_words(ablation)}; {tokens}"
    made_for = f"double masking against {ablation.threat_text}, {ablation.per_axis} masks per axis"
    return f"{made_for}, fill {ablation.fill}{'; hidden tokens are dropped' if dropped else ''}"


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
    sentences = []
    if figures.clean is not None:
        sentences.append(f"Without an attack, the whole-image classifier is right on {_with_interval(figures.clean)}.")
    if figures.smoothed is not None:
        by = "By double masking" if _has_masks(job) else "Smoothed over ablations"
        sentences.append(f"{by}, it is right on {_with_interval(figures.smoothed)}.")
    sentences += _certified_sentences(report)
    if report.bracket is not None:
        sentences.append(_bracket_sentence(report.bracket))
    return sentences


def _certified_sentences(report: Report) -> Iterator[str]:
    """What is certified: against the square of the page; of masks first against what they were made for."""
    figures, ablation, side = report.figures, report.run.job.ablation, report.figures.side
    square = figures.certified["exact"][side - 1]
    share, against, also = square, f"a {side} x {side} patch shows, wherever it lies", ""
    if isinstance(ablation, MaskAblation) and not _is_about_own_threat(report):
        share, against = figures.own_threat[Certificate.recovery][RuleName.exact], _whatever(ablation)
        also = f" Against a {side} x {side} patch: {percent(square.value)}."
    stays = "are right and stay right" if figures.labelled else "keep their prediction, right or wrong,"
    method = f"exact rule; {_method(report.run.job)}"
    yield f"Certified: {_with_interval(share)} {stays} whatever {against} ({method}).{also}"
    if (found := figures.detection) is not None:
        noticed, right = found.certified[side - 1], "is right and cannot" if figures.labelled else "cannot"
        share = noticed
        if also:
            share = figures.own_threat[Certificate.detection][RuleName.exact]
            also = f" Against a {side} x {side} patch: {percent(noticed.value)}."
        yield (
            f"Detection: on {_with_interval(share)} the class of the whole image {right} change without an alarm, "
            f"whatever {against} (exact rule).{also} False alarms, without an attack: "
            f"{_with_interval(found.false_alarms)}. Right, certified and silent: {percent(found.silent.value)}."
        )


def _whatever(ablation: MaskAblation) -> str:
    """What the masks were made for, after `whatever`."""
    if isinstance(ablation.threat, Area):
        return f"one of all {ablation.threat_text} shows, wherever it lies"
    if ablation.threat_patches > 1:
        return f"{ablation.threat_text} show, wherever they lie"
    return f"a {ablation.threat_text} patch shows, wherever it lies"


def _is_about_own_threat(report: Report) -> bool:
    ablation, side = report.run.job.ablation, report.figures.side
    return isinstance(ablation, MaskAblation) and (ablation.threat, ablation.threat_patches) == ((side, side), 1)


def _bracket_sentence(one: Bracket) -> str:
    """Both bounds, and what the upper one rests on."""
    height, width = one.patch
    what = "accuracy" if one.labelled else "share of predictions that stay"
    of = "images that are right and not certified" if one.labelled else "predictions that are not certified"
    if not one.attacked:
        return f"No attack with a {height} x {width} patch tried any of the {one.uncertified:,} {of}."
    share, low, high = one.upper
    interval = "" if low == high else f" (95 % interval {100 * low:.2f} to {100 * high:.2f} %)"
    return (
        f"Under attack: robust {what} against a {height} x {width} patch is between {percent(one.lower)} (certified) "
        f"and {percent(share)}{interval}; attacks tried {one.attacked:,} of the {one.uncertified:,} {of}, and "
        f"{one.fell:,} fell."
    )


def _brackets_note(labelled: bool) -> str:
    what, of = ("accuracy", "images that are right and") if labelled else ("share of predictions that stay", "those")
    return (
        f"Robust {what} is at least the certified one, and at most the one under attack. Attacks tried some of the "
        f"{of} not certified; the interval (95 %) allows for the others."
    )


def _bracket_row(one: Bracket) -> tuple[str, ...]:
    height, width = one.patch
    attacked = f"{one.attacked:,} of {one.uncertified:,}"
    return f"{height} x {width}", percent(one.lower), one.upper_text, attacked, f"{one.fell:,}"


def _with_interval(share: Share) -> str:
    low, high = share.interval
    images = number_of(share.images, "image")
    return f"{percent(share.value)} of {images} (95 % interval {100 * low:.2f} to {100 * high:.2f} %)"


def shares_of(report: Report) -> Sequence[tuple[str, Share]]:
    """Clean, smoothed and certified shares: the certified ones for each patch of the job and both rules; of masks first
    those against what they were made for, and detection."""
    figures, ablation = report.figures, report.run.job.ablation
    own = ablation.threat_text if isinstance(ablation, MaskAblation) and not _is_about_own_threat(report) else ""
    answered = len(figures.certified["exact"])
    rows = [("clean", figures.clean), (_predicted(report.run.job), figures.smoothed)]
    if own:
        by_rule = figures.own_threat[Certificate.recovery].items()
        rows += [(f"certified {own}, {rule} rule", share) for rule, share in by_rule]
    for side in sorted({figures.side, *(side for side in report.run.job.patches if side <= answered)}):
        for rule, shares in figures.certified.items():
            rows.append((f"certified {side} x {side}, {rule} rule", shares[side - 1]))
    if (found := figures.detection) is not None:
        side = figures.side
        if own:
            by_rule = figures.own_threat[Certificate.detection].items()
            rows += [(f"detection {own}, {rule} rule", share) for rule, share in by_rule]
        rows.append((f"detection {side} x {side}, exact rule", found.certified[side - 1]))
        rows += [("detection, right, certified and silent", found.silent), ("false alarms", found.false_alarms)]
    return [(name, share) for name, share in rows if share is not None]


def _share_row(what: str, share: Share) -> tuple[str, ...]:
    low, high = share.interval
    return what, f"{share.count:,}", percent(share.value), f"{100 * low:.2f} to {100 * high:.2f} %"


def _curve_alt(report: Report) -> str:
    exact = report.figures.certified["exact"]
    sides = sorted({round(side) for side in np.geomspace(1, len(exact), 6)})
    certified = "Certified share by side of a square patch, exact rule: " + "; ".join(
        f"{side} pixels: {percent(exact[side - 1].value)}" for side in sides
    )
    if (found := report.figures.detection) is not None:
        noticed = (f"{side} pixels: {percent(found.certified[side - 1].value)}" for side in sides)
        certified += f". Detection: {'; '.join(noticed)}"
    attacked = "; ".join(
        f"{one.patch[0]} pixels: {one.upper_text}"
        for one in report.brackets
        if one.attacked and one.patch[0] == one.patch[1]
    )
    return f"{certified}. Under attack: {attacked}" if attacked else certified


def _sample_note(report: Report) -> str:
    sample = report.sample
    if sample is None:
        return ""
    of_class = "" if sample.of_class is None else f" of class {sample.of_class}"
    bound = " The share against two patches is a lower bound." if sample.two_is_bound else ""
    two = ", two patches" if sample.sides else ""
    blank = " Rectangles that no mask hides at some place are left blank." if np.isnan(sample.rectangles).any() else ""
    return (
        f"Rectangles{two} and the map of weak places are of a sample: {number_of(sample.images, 'image')} with "
        f"votes{of_class}, drawn with seed {sample.seed}, by the exact rule.{bound}{blank}"
    )


def _atlas_note(sample: SampleFigures, units: str) -> str:
    row, column = np.unravel_index(sample.atlas.argmin(), sample.atlas.shape)
    masks = " The slack is the number of uniform masks that hide the patch, less 1." if units == "masks" else ""
    return (
        f"By how many {units} certificates hold, on average over the sample of {number_of(sample.images, 'image')}, if "
        f"a {sample.atlas_side} x {sample.atlas_side} patch lies there. The weakest place: top {sample.tops[row]}, "
        f"left {sample.lefts[column]} ({sample.atlas.min():.1f} {units}).{masks}"
    )


def _class_titles(report: Report) -> list[str]:
    """The columns of the table of classes; without labels nothing is right or wrong."""
    figures, side = report.figures, report.figures.side
    titles = ["class", "images", f"certified {side} x {side}"]
    if figures.labelled:
        predicted = _predicted(report.run.job)
        titles[2:2] = ["clean", predicted] if figures.with_clean else [predicted]
        titles.append(_FALLS_TO)
    return titles


def _class_cells(one: ClassFigures, titles: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    falls = "" if one.falls_to is None else f"{name_of(one.falls_to, names)}, {number_of(one.fallen, 'image')}"
    cells = {
        "class": (str(one.number), name_of(one.number, names)),
        "images": (str(one.images), f"{one.images:,}"),
        "clean": _share_cell(one.clean, one.images),
        **dict.fromkeys(("smoothed", "double masking"), _share_cell(one.smoothed, one.images)),
        _FALLS_TO: (falls, falls),
    }
    certified = _share_cell(one.certified, one.images)
    chosen = ((title, cells.get(title, certified)) for title in titles)
    return [{"value": value, "text": text, "is_text": title in _TEXTS} for title, (value, text) in chosen]


def _share_cell(count: int | None, images: int) -> tuple[str, str]:
    """The value by which a share is sorted, and its text."""
    return ("", DASH) if count is None else (f"{count / images:.6f}", percent(count / images))


def _cards(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    return [_card(entry.exhibit, names) for entry in entries]


def _card(one: Exhibit, names: Sequence[str]) -> dict[str, Any]:
    """The texts about an image."""
    size = f"{one.height} x {one.width}"
    largest = f"certified up to {one.largest} x {one.largest}" if one.largest else "certified against no patch"
    if one.masks is not None:
        cast = int((one.votes != ABSENT).sum())
        text = (
            f"{largest}; at the weakest place of a {size} patch, {masks_in_words(one.masks)}; {one.masks.differing:,} "
            f"of {number_of(cast, 'vote')} for other classes"
        )
    else:
        can = "can become" if one.slack < 0 else "would be nearest to"
        lead = number_of(abs(one.slack), "vote")
        slack = f"lacks {lead}" if one.slack < 0 else f"holds by {lead}"
        text = (
            f"{largest}; at its weakest place the certificate against {size} {slack}, and the prediction {can} "
            f"{name_of(one.becomes, names)}"
        )
    return {"title": name_of(one.prediction, names), "text": text, "which": short(f"{one.shard}: {one.key}")}


def _fallen_card(one: Success, names: Sequence[str], *, of_masks: bool) -> dict[str, Any]:
    """The texts about an image that fell."""
    if of_masks:
        found = f"{number_of(one.slack + 1, 'uniform mask')} hide it" if one.slack >= 0 else "no uniform mask hides it"
    else:
        lead = number_of(abs(one.slack), "vote")
        found = f"the certificate {'lacks' if one.slack < 0 else 'holds by'} {lead} there"
    return {
        "title": f"{name_of(one.prediction, names)} becomes {name_of(one.becomes, names)}",
        "text": f"{one.box.height} x {one.box.width} patch at top {one.box.top}, left {one.box.left}, found by "
        f"{one.attack}; {found}",
        "which": short(f"{one.shard}: {one.key}"),
    }


def _drawn(entry: Entry, names: Sequence[str]) -> dict[str, Any]:
    """The picture of an image, and its votes as a strip."""
    one = entry.exhibit
    alt = f"the image, predicted as {name_of(one.prediction, names)}"
    picture = picture_parts(entry.picture, one.box, alt, one.masks.boxes if one.masks else ())
    return picture | strip_parts(one, one.prediction, one.becomes, names)


def _provenance(report: Report) -> Sequence[tuple[str, str]]:
    run, figures = report.run, report.figures
    job, record = run.job, run.record
    size = sum(shard.size for shard in record.shards)
    made_by = sorted(figures.environments.items(), key=lambda one: -one[1])[:MAX_ERRORS]
    tokens = {"drop": "hidden tokens dropped", "keep": f"hidden tokens kept, {job.ablation.fill}"}[
        job.model.masked_tokens
    ]
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
        *((f"made by ({number_of(count, 'file')})", _environment(text)) for text, count in made_by),
    ]


def _environment(text: str) -> str:
    """The JSON of an environment in words: decoder, device, versions."""
    content = json.loads(text)
    versions = (f"{name} {version}" for name, version in (content["versions"] or {}).items())
    return ", ".join(str(part) for part in (content["decoder"], content["device"], *versions) if part)


def _job_text(report: Report) -> str:
    """The job as YAML; a list of very many tars would make the page large."""
    job = report.run.job.model_dump(mode="json", exclude_defaults=True)
    if len(str(job)) > MAX_JOB_CHARACTERS:
        return f"# The job is too long for this page. It is the key `job` of {plain(report.run.url)}/run.json."
    return yaml.safe_dump(job, sort_keys=False, allow_unicode=True)


def _report_command(report: Report, names: Sequence[str]) -> str:
    """The command that made this page; the report does not know which file the names of the classes came from."""
    sample, options = report.sample, ["--patch", str(report.figures.side)]
    options += [] if sample is None else ["--sample", str(sample.images), "--seed", str(sample.seed)]
    options += [] if sample is None or sample.of_class is None else ["--class", str(sample.of_class)]
    options += [] if tuple(names) in ((), report.run.class_names) else ["--names", "FILE"]
    return shlex.join(["smoothcert", "report", report.run.url, *options])
