"""Begin a run: write run.json once, and check that the storage refuses to overwrite it.

Not covered: what run.json says (plan.py).
"""

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.workers.runs.json_file import parse
from smoothcert.workers.runs.layout import RUN_JSON
from smoothcert.workers.runs.records import RunRecord
from smoothcert.workers.runs.run import Run


def begin(plan: Plan, *, unsafe_overwrite: bool = False) -> bool:
    """Write run.json unless it is there, then remove what dead writers left.

    Args:
        plan: the plan.
        unsafe_overwrite: continue although the storage does not refuse to overwrite, and say so in run.json.
    Returns:
        Whether the run begins now; if not, another driver may be at work on it.
    Raises:
        RequestError: the storage does not refuse to overwrite.
    """
    run = plan.run
    is_new = run.store.find(f"{run.url}/{RUN_JSON}") is None
    begins = is_new and run.store.publish(run.url, RUN_JSON, run.record.encode())
    _check_refusal(run, unsafe_overwrite=unsafe_overwrite)
    run.store.sweep(run.url)
    return begins


def _check_refusal(run: Run, *, unsafe_overwrite: bool) -> None:
    """Write run.json again. A storage that accepts this would also let two machines publish the same shard."""
    url = f"{run.url}/{RUN_JSON}"
    content = run.store.read(url)
    if not run.store.publish(run.url, RUN_JSON, content):
        return
    if not unsafe_overwrite:
        raise RequestError(
            f"output: {url} could be written twice, so of two machines that publish a shard the later would win "
            "(some servers ignore If-None-Match, in versioned buckets above all); use another bucket, or "
            "--unsafe-overwrite"
        )
    record = parse(RunRecord, content, url).model_copy(update={"unsafe_overwrite": True})
    run.store.publish(run.url, RUN_JSON, record.encode())
