"""What each JSON file of a run or a training holds, as frozen records. All code reads and writes the files as these.

    file                 record               JSON
    run.json             RunRecord            indented, keys sorted
    _SUCCESS             SuccessRecord        indented, keys sorted
    introduction.json    IntroductionRecord   one line
    drivers/*.jsonl      AttemptRecord        a line per attempt at a shard
                         DriverRecord         the last line
    votes/*.parquet      FileMetadata         one line, keys sorted, under the file's metadata key `smoothcert`
    training.json        TrainingRecord       indented

A field has a default unless smoothcert cannot do without it: an older file may lack newer keys.

Not covered: how a record is read and written (json_file.py); where the files lie (layout.py); the columns of votes
(votes_table.py); whether a record is true (pipeline/verify/, which has models of its own).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.locations import recorded_url
from smoothcert.manifests.shards import Shard
from smoothcert.workers.runs.environment import ENVIRONMENT
from smoothcert.workers.runs.json_file import Record
from smoothcert.workers.tars.tar_headers import LeftOut

_INDENTED: Mapping[str, Any] = {"indent": 1}
_SORTED: Mapping[str, Any] = {"sort_keys": True}
_INDENTED_SORTED = {**_INDENTED, **_SORTED}

_FROM_LIST = Field(strict=False)  # JSON has lists where a record has tuples
Texts = Annotated[tuple[str, ...], _FROM_LIST]
Numbers = Annotated[tuple[float, ...], _FROM_LIST]
Counts = Annotated[tuple[int, ...], _FROM_LIST]


def _recorded_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job, or training, whose URLs hold no keys: those of its images and its checkpoint."""
    kept = dict(job)
    if images := kept.get("images"):
        urls = {key: images[key] for key in ("shards", "label_names") if key in images}
        kept["images"] = images | {
            key: recorded_url(url) if isinstance(url, str) else url and [*map(recorded_url, url)]
            for key, url in urls.items()
        }
    if (model := kept.get("model")) and model.get("checkpoint"):
        kept["model"] = {**model, "checkpoint": recorded_url(model["checkpoint"])}
    if validation := kept.get("validation"):
        kept["validation"] = _recorded_job(validation)
    return kept


class CheckpointRecord(Record):
    """The weights that vote.

    Attributes:
        url: where the driver found the file.
        sha256: of the file, in hex.
        key: the state dict to use if the file holds several.
    """

    url: str | None = None
    sha256: str
    key: str | None


class ShardRecord(Record):
    """A shard of a run: the fields of Shard, and the number of its images that are in the run (None: all)."""

    name: str
    url: str
    size: int
    fingerprint: str
    images: int | None
    limit: int | None

    @classmethod
    def of(cls, shard: Shard, limit: int | None) -> Self:
        return cls(**vars(shard), limit=limit)

    @property
    def shard(self) -> Shard:
        return Shard(self.name, self.url, self.size, self.fingerprint, self.images)


class RunRecord(Record):
    """run.json: what a run is made from.

    Attributes:
        run_id: follows from `identity`.
        name: of the job.
        partial: whether images.limit leaves images out.
        created: when the run began, ISO 8601.
        identity: what determines the votes (manifests/identity.py).
        votes_version: of the code that began the run.
        job: the job file with all defaults. Plain JSON, because the keys of a job change between versions.
        checkpoint: the weights.
        shards: all tars of the job in order.
        versions: of Python and the libraries on the driver's machine.
        unsafe_overwrite: whether the storage may overwrite published files.
        class_names: of the classes 0, 1, ... if the job or the index of the tars says them.
    """

    error = RequestError
    remedy = "move the run away and start again"
    json_style = _INDENTED_SORTED

    run_id: str
    name: str
    partial: bool
    created: str | None = None
    identity: dict[str, Any]
    votes_version: int | None = None
    job: dict[str, Any]
    checkpoint: CheckpointRecord
    shards: Annotated[tuple[ShardRecord, ...], _FROM_LIST]
    versions: dict[str, str] = Field(default={})
    unsafe_overwrite: bool = False
    class_names: Texts = ()

    def as_json(self) -> dict[str, Any]:
        """The keys of the file. Runs are given to others, so URLs lose the keys that they may hold."""
        content = super().as_json()
        for record in (content["checkpoint"], *content["shards"]):
            if record.get("url"):
                record["url"] = recorded_url(record["url"])
        content["job"] = _recorded_job(content["job"])
        return content


class CertifiedRecord(Record):
    """A square patch and the share of images that each rule certifies against it.

    In a job with labels an image counts as certified only if its prediction is right. A share is None if no label can
    be used.

    Attributes:
        patch: height and width in pixels.
        exact, margin: shares from 0 to 1, by rule.
    """

    patch: Annotated[tuple[int, int], _FROM_LIST]
    exact: float | None
    margin: float | None


class FiguresRecord(Record):
    """The figures of a run, as `certify --json` and _SUCCESS give them; an accuracy is a share of all images.

    Attributes:
        images: number of rows.
        status: number of rows of each status.
        clean_accuracy, smoothed_accuracy: shares from 0 to 1; None without usable labels.
        bad_labels: images whose label is an error.
        first_bad_label: key and reason of the first of these.
        rotated_images: images whose EXIF orientation says that the stored pixels are not upright.
        system_members, samples_without_image, suffixes_without_image: as in LeftOut.
        certified: shares by patch.
    """

    images: int = 0
    status: dict[str, int] = Field(default={})
    clean_accuracy: float | None = None
    smoothed_accuracy: float | None = None
    bad_labels: int = 0
    first_bad_label: str | None = None
    rotated_images: int = 0
    system_members: int = 0
    samples_without_image: int = 0
    suffixes_without_image: Texts = ()
    certified: Annotated[tuple[CertifiedRecord, ...], _FROM_LIST] = ()


class SuccessRecord(FiguresRecord):
    """_SUCCESS: the figures of a complete run.

    Attributes:
        rows: number of rows, equal to `images`.
        shards: number of files.
        files: SHA-256 of each file of votes, in hex, by the file's name.
    """

    json_style = _INDENTED_SORTED

    rows: int
    shards: int | None = None
    files: dict[str, str]


class IntroductionRecord(Record):
    """introduction.json: what the run's first actor says about itself.

    Attributes:
        node: name of its machine.
        environment: versions, decoder and device.
        votes_version: of its code.
        logits: of an image that is the same everywhere, one per class.
    """

    remedy = "move it away and run the same command again"

    node: str
    environment: dict[str, Any]
    votes_version: int
    logits: Numbers


class AttemptRecord(Record):
    """A line of drivers/*.jsonl: the outcome of an attempt at a shard.

    Attributes:
        shard: name of the tar.
        outcome: published, found (another driver published the shard), requeued or failed.
        at_s: when, in seconds since the driver began.
        statuses, seconds, turn_seconds, decode_wait_seconds, node: of a finished shard, as in ShardReport.
        reason: of a shard that was requeued or failed.
    """

    shard: str
    outcome: str
    at_s: float | None = None
    statuses: dict[str, int] = Field(default={})
    seconds: float | None = None
    turn_seconds: float | None = None
    decode_wait_seconds: float | None = None
    node: str | None = None
    reason: str | None = None


class DriverRecord(Record):
    """The last line of drivers/*.jsonl.

    Attributes:
        node: name of the driver's machine.
        began: when the driver began, ISO 8601.
        seconds: how long it worked.
        images: rows that its actors finished.
        images_per_second: since the driver began; None without images.
    """

    node: str
    began: str | None = None
    seconds: float | None = None
    images: int = 0
    images_per_second: float | None = None


class ShardFileRecord(Record):
    """The tar that a file of votes is made from; fields as in Shard."""

    name: str
    size: int | None = None
    fingerprint: str | None = None


class FileMetadata(Record):
    """What a file of votes records about itself.

    Attributes:
        run_id: of its run.
        shard: the tar.
        shard_sha256: of the tar, in hex.
        votes_version: of the code.
        geometry: the job's ablation, and its crop in pixels.
        images_per_batch: number of images that were voted on together.
        system_members, samples_without_image, suffixes_without_image: as in LeftOut.
        rotated_images: images whose EXIF orientation says that the stored pixels are not upright.
        seconds: from fetching the tar to the table.
        versions, decoder, device: the environment that made the votes.
        columns_sha256: over the values of the columns (votes_table.py).
    """

    json_style = _SORTED

    run_id: str
    shard: ShardFileRecord | None = None
    shard_sha256: str | None = None
    votes_version: int | None = None
    geometry: dict[str, Any] = Field(default={})
    images_per_batch: int | None = None
    system_members: int = 0
    samples_without_image: int = 0
    suffixes_without_image: Texts = ()
    rotated_images: int = 0
    seconds: float | None = None
    versions: dict[str, str] | None = None
    decoder: str | None = None
    device: str | None = None
    columns_sha256: str | None = None

    @property
    def environment(self) -> dict[str, Any]:
        """What produced the votes besides code and weights."""
        return {key: getattr(self, key) for key in ENVIRONMENT}

    @property
    def left_out(self) -> LeftOut:
        """What the tar holds that is not in the run."""
        return LeftOut(self.system_members, self.samples_without_image, frozenset(self.suffixes_without_image))


class TrainingRecord(Record):
    """training.json: what a training is made from.

    Attributes:
        training: the training file with all defaults. Plain JSON, because its keys change between versions.
        identity: what determines the weights (manifests/training.py).
        images: number of images of each tar; None if they were not counted.
    """

    error = RequestError
    remedy = "restore it, or use another name"
    json_style = _INDENTED

    training: dict[str, Any]
    identity: dict[str, Any]
    images: Counts | None = None

    def as_json(self) -> dict[str, Any]:
        """The keys of the file, its URLs without the keys that they may hold."""
        content = super().as_json()
        content["training"] = _recorded_job(content["training"])
        return content
