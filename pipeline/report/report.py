"""`smoothcert report`: reads a run once, and writes report.html, report.md and report.json.

Not covered: the figures (figures.py, sample.py, gallery.py), how they look (page.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smoothcert.manifests.ablation import Area, MaskAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.bracket import Bracket, brackets_of, patch_attacks_of
from smoothcert.pipeline.pages.patches import Success, successes_of
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.pipeline.report.figures import Figures, Sums, columns_of
from smoothcert.pipeline.report.gallery import Entry, Extremes, entries_of
from smoothcert.pipeline.report.sample import SampleFigures, Sampler, sample_figures
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.storage.aside import written_aside
from smoothcert.workers.storage.disk import is_full, is_too_large, naming_a_full_disk, reason_of

EXHIBITS, SEED = 12, 0
"""Defaults: images at either end of the gallery, seed of the draw."""
MAX_SAMPLE, SAMPLED_VOTES = 1000, 4_000_000
"""The default sample has at most so many images and votes. A sample of blocks, with many votes each, is smaller."""


@dataclass(frozen=True)
class Report:
    """What a report says about a run.

    Attributes:
        run: the run.
        complete: whether it is complete.
        figures: of all images.
        sample: of a sample of those with votes; None if there are none.
        fragile, sturdy: images at either end.
        brackets: of the sizes of patches that attacks tried; none while the run is not complete.
        fallen: images that fell to the patch that the page is about, or to any if attacks did not try this one.
    """

    run: Run
    complete: bool
    figures: Figures
    sample: SampleFigures | None
    fragile: tuple[Entry, ...]
    sturdy: tuple[Entry, ...]
    brackets: tuple[Bracket, ...]
    fallen: tuple[Success, ...]

    @property
    def bracket(self) -> Bracket | None:
        """That of the patch that the page is about, if attacks tried it."""
        return next((one for one in self.brackets if one.patch == (self.figures.side,) * 2), None)

    @property
    def problems(self) -> list[str]:
        """What must not be, a line each: certified images that fell."""
        return [problem for one in self.brackets for problem in one.problems]


def report_of(
    run: Run,
    *,
    side: int | None = None,
    sample: int | None = None,
    seed: int = SEED,
    of_class: int | None = None,
    exhibits: int = EXHIBITS,
) -> Report:
    """Read a run.

    Args:
        run: finished or not; what is published is read.
        side: of the square patch that headline, classes, weak places and images are about; None: the job's first, or
            the one that its masks were made for.
        sample: images of the sample; None: as many as take a minute, at most MAX_SAMPLE.
        seed: of the draw.
        of_class: draw only images of this class.
        exhibits: images at either end of the gallery, and images that fell.
    Raises:
        RequestError: nothing is published yet, the patch does not fit, or no image is of the class.
        RunError: a file is damaged.
    """
    complete = run.complete()  # before the files are read: _SUCCESS is written after them
    job, rules = run.job, JobRules(run.job)
    side, labelled = _side(rules, side), job.images.label is not None
    if sample is None:
        sample = min(MAX_SAMPLE, max(1, SAMPLED_VOTES // rules.ablations.num_ablations))
    sums, drawn = Sums(job, side), Sampler(sample, seed, of_class, labelled=labelled)
    extremes = Extremes(exhibits, labelled)
    indices = {task.file_name: task.index for task in run.tasks}
    for file in read_published(run, columns_of(job)):
        judged = Rows(file.rows, job)
        sums.add(file, judged)
        drawn.add(indices[file.name], file)
        extremes.add(judged)
    if not sums.files:
        raise run.no_files_yet()
    rows = drawn.rows()
    if of_class is not None and not len(rows):
        column = "label" if labelled else "prediction"
        raise RequestError(
            f"--class {of_class}: no image with votes has this {column} in {run.url}; name another class"
        )
    attacks = patch_attacks_of(run) if complete else {}
    shown = attacks.get((side, side)) or [study for studies in attacks.values() for study in studies]
    fragile, sturdy = (entries_of(rows, run, side) for rows in extremes.tables())
    return Report(
        run=run,
        complete=complete,
        figures=sums.figures(),
        sample=sample_figures(rows, job, side, seed=seed, of_class=of_class) if len(rows) else None,
        fragile=fragile,
        sturdy=sturdy,
        brackets=tuple(brackets_of(run, attacks).values()),
        fallen=successes_of(run, shown, exhibits),
    )


def _side(rules: JobRules, side: int | None) -> int:
    """The side that was asked for, else the job's first, else a seventh of the image; of masks that of their threat, or
    of the largest square that they hide.
    """
    job, crop = rules.job, rules.job.preprocess.crop
    if side is None and isinstance(job.ablation, MaskAblation):
        threat = job.ablation.threat
        is_square = not isinstance(threat, Area) and threat[0] == threat[1]
        return threat[0] if is_square else rules.longest_square
    if side is None:
        return job.patches[0] if job.patches else max(1, crop // 7)
    if side > crop:
        raise RequestError(f"--patch {side}: must be 1 to {crop}, the side of the image")
    if isinstance(job.ablation, MaskAblation):
        rules.refuse(Threat(side, side))
    return side


def texts_of(report: Report, names: Sequence[str] = ()) -> dict[str, str]:
    """The three files by name; `names` are those of the classes. Paths in them need not be UTF-8."""
    from smoothcert.pipeline.report.page import html_of, markdown_of
    from smoothcert.pipeline.report.record import json_of

    return {
        "report.html": html_of(report, names),
        "report.md": markdown_of(report, names),
        "report.json": json_of(report),
    }


def write_report(report: Report, folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Write the three files into a folder, which is made; return their paths. Files of these names are replaced.

    Args:
        report: to write.
        folder: of this machine.
        names: of the classes.
    Raises:
        RequestError: the folder cannot be written to.
        RunError: the disk is full.
    """
    texts = texts_of(report, names)
    paths = [folder / name for name in texts]
    with naming_a_full_disk(folder.absolute(), "name another folder with --output"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, text in zip(paths, texts.values(), strict=True):
                with written_aside(path) as aside:
                    aside.write_text(text, encoding="utf-8", errors="backslashreplace")  # paths need not be UTF-8
        except OSError as error:
            if is_full(error) or is_too_large(error):
                raise
            reason = f"cannot be written to ({reason_of(error)}); name a folder of this machine"
            raise RequestError(f"--output {folder}: {reason}") from None
    return paths
