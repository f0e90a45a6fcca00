"""Whether the first images show that the request is wrong.

If nearly all images have the same fault, the model, the preprocessing or the labels are wrong. One odd shard proves
nothing, so a fault must show in the first images of several shards.

Pure. Not covered: who votes on these images (tryout.py).
"""

from collections import Counter

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.job import Job
from smoothcert.manifests.names import listed
from smoothcert.workers.runs.shard_task import ShardTask, TriedOut
from smoothcert.workers.tars.label_counts import NEARLY_ALL, LabelCounts

_MIN_IMAGES = 8  # fewer images show nothing
_REMEDIES = {"model_error": "the model, its weights and the preprocessing", "size_error": "the preprocessing"}
"""What in the request causes an error, by status."""
_MIN_SHARDS = 3  # must show a fault before it is believed


class Canary:
    """The first images of some shards.

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
        """Whether more shards would change nothing."""
        enough = self._statuses.total() >= _MIN_IMAGES
        return enough and (len(self._shards) >= _MIN_SHARDS or self.fault() is None)

    def fault(self) -> SmoothcertError | None:
        """What is wrong with the request, or None."""
        total = self._statuses.total()
        if total < _MIN_IMAGES:
            return None
        where = f"the first {total} images of {listed(self._shards)}"
        return self._fault_of_votes(total, where) or self._fault_of_labels(where)

    def _fault_of_votes(self, total: int, where: str) -> SmoothcertError | None:
        voted = self._statuses["ok"] + self._statuses["label_error"]
        if total - voted < NEARLY_ALL * total:
            return None
        worst, count = (self._statuses - Counter(ok=total, label_error=total)).most_common(1)[0]
        share = "none" if not voted else f"only {voted}"
        wrong = RequestError if worst in _REMEDIES else RunError  # images may be damaged, or their disk
        return wrong(
            f"{share} of {where} can be voted on ({count} x {worst}, the first is {self._first_without_votes}); "
            f"check {_REMEDIES.get(worst, 'the images and the preprocessing')}"
        )

    def _fault_of_labels(self, where: str) -> SmoothcertError | None:
        if self._labels.nearly_all_bad:
            return RequestError(
                f"images.label: {self._labels.bad} of {where} have no usable label, the first is "
                f"{self._labels.first_bad}; correct images.label or model.classes, or set images.label: null for "
                "images without labels"
            )
        if misnumbered := self._labels.misnumbered(self._job.images, self._job.model.classes):
            return RequestError(f"images.label: {misnumbered} (seen in {where})")
        return None
