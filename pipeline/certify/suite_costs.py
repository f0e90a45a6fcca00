"""What a suite costs: the estimate of each job, and what the jobs share.

Not covered: one job (costs.py); the pass itself (one_pass.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.manifests.job import Job
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.certify.costs import Costs, costs_of_plan
from smoothcert.pipeline.certify.suite_driver import plans_of
from smoothcert.pipeline.certify.turns import turns_in_words, turns_of
from smoothcert.workers.tars.pixels import PixelReader, PixelSettings
from smoothcert.workers.votes.machine import device_here, memory_bytes


class SuiteCosts(NamedTuple):
    """What `smoothcert plan SUITE` prints.

    Attributes:
        entries: the costs of each job that can be done.
        faults: why the others cannot.
        decoded_together: the entries of one turn that see the same pixels, so that a shard is decoded once for them.
        turns: the entries whose models vote together.
        memory: bytes of one actor, as assumed for the turns.
    """

    entries: dict[str, Costs]
    faults: dict[str, str]
    decoded_together: list[list[str]]
    turns: list[list[str]]
    memory: int

    @property
    def notices(self) -> Iterator[str]:
        """What the user must know about the pass, a line each."""
        for names in self.decoded_together:
            if len(names) > 1:
                yield f"each shard is decoded once for {', '.join(names)}"
            elif names not in self.turns:
                yield f"each shard is decoded by itself for {names[0]}, whose pixels or classes differ from the others'"
        yield from turns_in_words(self.turns, self._weights, self.memory)

    @property
    def _weights(self) -> dict[str, int]:
        return {name: costs.plan.checkpoint_bytes for name, costs in self.entries.items()}

    def as_json(self) -> dict[str, Any]:
        """The figures as numbers."""
        return {
            "entries": {name: costs.as_json() for name, costs in self.entries.items()}
            | {name: {"problems": [fault]} for name, fault in self.faults.items()},
            "decoded_together": self.decoded_together,
            "turns": self.turns,
            "notices": list(self.notices),
        }


def suite_costs_of(suite: Suite, tflops: float, *, allow_code: bool = False) -> SuiteCosts:
    """Estimate what the jobs of a suite cost; arguments and errors as for `costs_of` of a job.

    Raises:
        RequestError: no entry can be done, for a reason that is the same for all.
    """
    plans, faults = plans_of(suite, allow_code=allow_code)
    wrong = {name: str(fault) for name, fault in faults.items()}
    entries = dict[str, Costs]()
    for name, plan in plans.items():
        try:
            entries[name] = costs_of_plan(plan, tflops)
        except SmoothcertError as error:
            wrong[name] = str(error)
    memory = next(iter(suite.jobs.values())).execution.memory_bytes or memory_bytes(device_here())
    weights = {name: costs.plan.checkpoint_bytes for name, costs in entries.items()}
    turns = turns_of(weights, memory)
    together = [names for turn in turns for names in _together({name: entries[name].plan.job for name in turn})]
    return SuiteCosts(entries, wrong, together, turns, memory)


def _together(jobs: Mapping[str, Job]) -> Iterable[list[str]]:
    """The names of jobs that see the same pixels."""
    together: dict[PixelSettings, list[str]] = {}
    for name, job in jobs.items():
        together.setdefault(_pixels_of(job), []).append(name)
    return together.values()


def _pixels_of(job: Job) -> PixelSettings:
    return PixelReader(job.images, job.preprocess, job.model.classes, images_per_batch=1, threads=1).settings
