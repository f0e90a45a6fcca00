"""What the first images say of the request, before the fleet starts.

A fault of single images that nearly all of them have is a fault of the request: of the model, the preprocessing or the
labels. One odd shard proves nothing, so a fault must hold over the first images of several. Pure: who votes on these
images, and where, is not covered (fleet.py).
"""

from collections import Counter

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.job import Job
from smoothcert.manifests.names import listed
from smoothcert.workers.runs.shard_task import ShardTask, TriedOut
from smoothcert.workers.tars.label_counts import NEARLY_ALL, LabelCounts

_ENOUGH = 8  # images from which on "nearly all" says something
_TO_CHECK = {"model_error": "the model, its weights and the preprocessing"}
_SHARDS = 3  # asked before a fault is believed


class Canary:
    """The images of some shards that were tried out.

    Args:
        job: the job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._statuses = Counter[str]()
        self._first_without_votes: str | None = None
        self._labels = LabelCounts()
        self._shards: list[str] = []

    def add(self, task: ShardTask, tried: TriedOut) -> None:
        """Count the first images of a shard."""
        self._statuses += tried.statuses
        self._first_without_votes = self._first_without_votes or tried.first_without_votes
        self._labels += tried.labels
        self._shards.append(task.shard.name)

    @property
    def is_sure(self) -> bool:
        """Whether more shards would tell no more."""
        enough = self._statuses.total() >= _ENOUGH
        return enough and (len(self._shards) >= _SHARDS or self.fault() is None)

    def fault(self) -> SmoothcertError | None:
        """What is wrong with the request, or None."""
        total, voted = self._statuses.total(), self._statuses["ok"] + self._statuses["label_error"]
        where = f"the first {total} images of {listed(self._shards)}"
        if total < _ENOUGH:
            return None
        if total - voted >= NEARLY_ALL * total:
            worst, count = (self._statuses - Counter(ok=total, label_error=total)).most_common(1)[0]
            share = "none" if not voted else f"only {voted}"
            return RunError(
                f"{share} of {where} can be voted on ({count} x {worst}, the first is {self._first_without_votes}); "
                f"check {_TO_CHECK.get(worst, 'the images and the preprocessing')}"
            )
        if self._labels.nearly_all_bad:
            return RequestError(
                f"images.label: {self._labels.bad} of {where} have no usable label, the first is "
                f"{self._labels.first_bad}; correct images.label or model.classes, or set images.label: null for "
                "images without labels"
            )
        if misnumbered := self._labels.misnumbered(self._job.images, self._job.model.classes):
            return RequestError(f"images.label: {misnumbered} (seen in {where})")
        return None
