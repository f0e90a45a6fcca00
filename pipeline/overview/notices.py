"""What else a reader of a run's figures must know, a line each: faults, and what is not in the run."""

from collections.abc import Iterator

from smoothcert.manifests.job import Job
from smoothcert.pipeline.console.looks import number_of
from smoothcert.pipeline.overview.summary import Summary
from smoothcert.workers.tars.tar_headers import LeftOut

_MAX_SUFFIXES = 10  # in a line


def faults_of(summary: Summary, job: Job) -> Iterator[str]:
    """Why the figures of a complete run cannot be trusted."""
    if summary.unusable > job.max_error_share * summary.images:
        kinds = ((summary.without_votes, "votes"), (summary.labels.bad, "usable label"))
        what = " and ".join(f"{count} of {summary.images} images have no {kind}" for count, kind in kinds if count)
        yield f"{what}, more than max_error_share ({job.max_error_share:g}) allows: see the columns status and error"
    if misnumbered := summary.labels.misnumbered(job.images, job.model.classes):
        yield f"images.label: {misnumbered}"


def notices_of(summary: Summary) -> Iterator[str]:
    """Where the votes come from if that may matter, and what of the tars is not in the run."""
    if len(summary.environments) > 1:
        made = "; ".join(f"{count} files by {environment}" for environment, count in summary.environments.items())
        yield f"mixed versions or devices, votes of tiny margins may depend on them: {made}"
    for run_id, files in summary.adopted_from.items():
        taken = number_of(files, "shard")
        yield f"{taken} of {len(summary.files):,} taken over from run {run_id}: the tars are the same"
    yield from left_out_notices(summary.left_out)


def left_out_notices(left_out: LeftOut) -> Iterator[str]:
    """What of the tars is not in the run; `plan` and `certify` print the same."""
    if left_out.system_members:
        were = "was" if left_out.system_members == 1 else "were"
        yield (
            f"{number_of(left_out.system_members, 'file')} that operating systems add to folders, such as ._NAME or "
            f".DS_Store, {were} skipped in the tars"
        )
    if count := left_out.samples_without_image:
        have, are = ("has", "is") if count == 1 else ("have", "are")
        suffixes = sorted(left_out.suffixes_without_image)
        more = f" and {len(suffixes) - _MAX_SUFFIXES} more" if len(suffixes) > _MAX_SUFFIXES else ""
        yield (
            f"{number_of(count, 'sample')} in the tars {have} no member that images.image names (suffixes: "
            f"{', '.join(suffixes[:_MAX_SUFFIXES])}{more}) and {are} not in the run; add the suffixes that are images "
            "to images.image"
        )
