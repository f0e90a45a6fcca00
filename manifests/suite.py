"""The suite file: several jobs on the same images, certified in one pass.

Not covered: one job (job.py); what the gates are (gates.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from smoothcert.manifests.gates import Gates
from smoothcert.manifests.job import Job


@dataclass(frozen=True)
class Suite:
    """Jobs that share images, output, execution and storage.

    Attributes:
        name: shown in tables.
        jobs: by the name of their entry, in the order of the file.
        gates: of the entries that have gates, by name.
        baseline: how the baseline of a night moves: by `smoothcert accept` alone, or to each night whose gates held.
        allow: the reasons for which runs differ that a comparison with the baseline accepts.
    """

    name: str
    jobs: Mapping[str, Job]
    gates: Mapping[str, Gates] = field(default_factory=dict)
    baseline: Literal["accepted", "previous"] = "accepted"
    allow: tuple[str, ...] = ("images",)
