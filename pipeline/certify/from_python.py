"""`smoothcert.certify`: a job in, its run out.

Importing this file loads nothing that makes runs, so that the base install can say what it lacks.
Not covered: the work itself (driver.py).
"""

from pathlib import Path

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Job
from smoothcert.pipeline.certify.options import Options
from smoothcert.workers.extras import needs_certify
from smoothcert.workers.runs.run import Run


@needs_certify
def certify(
    job: Job | str | Path,
    *,
    strict_versions: bool = False,
    unsafe_overwrite: bool = False,
    allow_code: bool = False,
    adopt_across: bool = False,
) -> Run:
    """Certify every shard of a job that is not certified yet, print the summary, and return the run.

    Args:
        job: from `load_job`, or the path of a job file.
        strict_versions, unsafe_overwrite, allow_code, adopt_across: as the options of the command.
    Raises:
        RequestError: the work cannot begin.
        RunError: it cannot continue, a shard failed, or too many images have no votes or no usable label. What is
            finished is kept.
    """
    from smoothcert.pipeline.certify import driver
    from smoothcert.workers.networks.described_jobs import load_job

    if not isinstance(job, Job | str | Path):
        raise RequestError(f"job: expected a Job, or the path of a job file, not {type(job).__name__}")
    job = job if isinstance(job, Job) else load_job(job)

    options = Options(strict_versions, unsafe_overwrite, allow_code, adopt_across)
    outcome = driver.certify(job, options)
    assert outcome.run is not None  # a job's run is known, or an error was raised
    if outcome.problems:
        raise RunError(f"{outcome.run.url}: {'; '.join(outcome.problems)}")
    return outcome.run
