"""`smoothcert status JOB|SUITE`: how far the runs of a file have come. Their ids follow from the file and its images.

Not covered: the status of a run (overview/status.py).
"""

from typing import NamedTuple

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.manifests.job import Job
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.certify.suite_driver import plans_of
from smoothcert.pipeline.overview.status import Status, status_of


class PlannedStatus(NamedTuple):
    """The status of each entry, and why another has none. A job is one entry without a name."""

    entries: dict[str, Status]
    faults: dict[str, str]


def planned_status_of(loaded: Job | Suite, *, allow_code: bool = False) -> PlannedStatus:
    """Find the runs of a job or a suite, and read what is published.

    Raises:
        RequestError, RunError: as `make_plan` and `status_of` raise them; of a suite, for a reason that is the same for
            all entries.
    """
    if isinstance(loaded, Job):
        return PlannedStatus({"": status_of(make_plan(loaded, allow_code=allow_code).run)}, {})
    plans, faults = plans_of(loaded, allow_code=allow_code)
    statuses = dict[str, Status]()
    for name, plan in plans.items():
        try:
            statuses[name] = status_of(plan.run)
        except SmoothcertError as error:
            faults[name] = error
    return PlannedStatus(statuses, {name: str(fault) for name, fault in faults.items()})
