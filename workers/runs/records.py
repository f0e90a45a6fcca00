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

from smoothcert.manifests.ablation import Area, threat_in_words
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
    """The weights that vote."""

    url: str | None = None
    """Where the driver found the file."""
    sha256: str
    """SHA-256 of the file, in hex."""
    key: str | None
    """The state dict to use; null if the file holds only one."""


class ShardRecord(Record):
    """A shard of a run: the fields of Shard, and the number of its images that are in the run."""

    name: str
    """Base name of the tar."""
    url: str
    """Where the tar was when the run began."""
    size: int
    """Size of the tar, in bytes."""
    fingerprint: str
    """Changes when the content may have changed: an ETag, or path and modification time."""
    images: int | None
    """Number of its images by an index file; null if none says it."""
    limit: int | None
    """Number of its images that are in the run; null: all."""

    @classmethod
    def of(cls, shard: Shard, limit: int | None) -> Self:
        return cls(**vars(shard), limit=limit)

    @property
    def shard(self) -> Shard:
        return Shard(self.name, self.url, self.size, self.fingerprint, self.images)


class RunRecord(Record):
    """run.json: what a run is made from."""

    error = RequestError
    remedy = "move the run away and start again"
    json_style = _INDENTED_SORTED

    run_id: str
    """Follows from `identity`; the name of the run's folder."""
    name: str
    """Name of the job."""
    partial: bool
    """Whether images.limit leaves images out."""
    created: str | None = None
    """When the run began, ISO 8601."""
    identity: dict[str, Any]
    """What determines the votes (manifests/identity.py)."""
    votes_version: int | None = None
    """Of the code that began the run; raised when other code would cast other votes."""
    job: dict[str, Any]
    """The job file with all defaults. Plain JSON, because the keys of a job change between versions."""
    checkpoint: CheckpointRecord
    """The weights that vote."""
    shards: Annotated[tuple[ShardRecord, ...], _FROM_LIST]
    """All tars of the job, in order."""
    versions: dict[str, str] = Field(default={})
    """Versions of Python, smoothcert and the libraries on the driver's machine."""
    unsafe_overwrite: bool = False
    """Whether the storage may overwrite published files."""
    class_names: Texts = ()
    """Names of the classes 0, 1, ... if the job or the index of the tars says them."""

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
    """

    patch: Annotated[tuple[int, int], _FROM_LIST]
    """Height and width in pixels."""
    exact: float | None
    """Share from 0 to 1 that the exact rule certifies; with labels, only right predictions count."""
    margin: float | None
    """The same by the margin rule."""

    @property
    def against(self) -> str:
        """The patch in words."""
        return threat_in_words(self.patch)


class MaskCertifiedRecord(Record):
    """What a run of masks certifies against the threat that its masks were made for, in shares of images.

    In a job with labels an image counts only if its class is right. A share is None if no label can be used.
    """

    patch: Annotated[tuple[int, int] | None, _FROM_LIST]
    """Height and width in pixels; null for all rectangles of an area."""
    pixels: int | None = None
    """The area, `threat: {pixels: N}`; null for patches of one size."""
    patches: int = 1
    """Number of patches at once."""
    exact: float | None
    """Share from 0 to 1 of predictions that the exact rule of recovery certifies."""
    published: float | None
    """The same by the published rule."""
    detection: float | None
    """Share whose whole image is right and certified for detection by the published rule; null without `clean`."""

    @property
    def against(self) -> str:
        """The threat in words."""
        return threat_in_words(Area(self.pixels or 0) if self.patch is None else self.patch, self.patches)


AnyCertifiedRecord = CertifiedRecord | MaskCertifiedRecord


class FiguresRecord(Record):
    """The figures of a run, as `certify --json` and _SUCCESS give them; an accuracy is a share of all images."""

    images: int = 0
    """Number of rows."""
    status: dict[str, int] = Field(default={})
    """Number of rows of each status."""
    clean_accuracy: float | None = None
    """Share from 0 to 1 whose whole image is classified as its label says; null without usable labels, or if the job
    has `clean: false`."""
    smoothed_accuracy: float | None = None
    """Share from 0 to 1 whose prediction is the label; null without usable labels."""
    bad_labels: int = 0
    """Images whose label is an error."""
    first_bad_label: str | None = None
    """Key and reason of the first of these; null if there are none."""
    rotated_images: int = 0
    """Images whose EXIF orientation says that the stored pixels are not upright."""
    system_members: int = 0
    """Files in the tars that operating systems added."""
    samples_without_image: int = 0
    """Samples with a label or another image suffix, but without an image that `images.image` names."""
    suffixes_without_image: Texts = ()
    """Suffixes of the members of these samples."""
    certified: Annotated[tuple[AnyCertifiedRecord, ...], _FROM_LIST] = ()
    """Shares by patch."""


class SuccessRecord(FiguresRecord):
    """_SUCCESS: the figures of a complete run."""

    json_style = _INDENTED_SORTED

    rows: int
    """Number of rows, equal to `images`."""
    shards: int | None = None
    """Number of files of votes."""
    files: dict[str, str]
    """SHA-256 of each file of votes, in hex, by the file's name."""
    adopted_from: dict[str, int] = Field(default={})
    """Number of files whose rows come from another run, by the id of that run."""


class IntroductionRecord(Record):
    """introduction.json: what the run's first actor says about itself."""

    remedy = "move it away and run the same command again"

    node: str
    """Name of its machine."""
    environment: dict[str, Any]
    """Versions, decoder and device."""
    votes_version: int
    """Version of its code."""
    logits: Numbers
    """Logits of an image that is the same everywhere, one per class."""


class AttemptRecord(Record):
    """A line of drivers/*.jsonl: the outcome of an attempt at a shard."""

    shard: str
    """Name of the tar."""
    outcome: str
    """published; adopted (taken over from another run); found (another driver published the shard); requeued;
    failed."""
    at_s: float | None = None
    """When, in seconds since the driver began."""
    statuses: dict[str, int] = Field(default={})
    """Of a finished shard: number of rows of each status."""
    adopted_from: str | None = None
    """Of an adopted shard: the run that its rows come from."""
    seconds: float | None = None
    """Of a finished shard: seconds from fetching the tar to the published file."""
    turn_seconds: float | None = None
    """Those of `seconds` in which the model worked for this shard or waited for its images."""
    decode_wait_seconds: float | None = None
    """Those of `turn_seconds` in which the model waited for decoded images."""
    node: str | None = None
    """Of a finished shard: name of the machine."""
    reason: str | None = None
    """Of a shard that was requeued or failed: one line."""
    file: str | None = None
    """Of a finished shard: the name of its file of votes, relative to the run."""
    file_sha256: str | None = None
    """SHA-256 of that file as it was written, in hex; of a file that was found, as it was read."""
    footer_sha256: str | None = None
    """SHA-256 of its Parquet footer, with the 8 bytes behind it, in hex. It tells this file from one that was made
    again."""


class DriverRecord(Record):
    """The last line of drivers/*.jsonl."""

    node: str
    """Name of the driver's machine."""
    began: str | None = None
    """When the driver began, ISO 8601."""
    seconds: float | None = None
    """How long it worked, in seconds."""
    images: int = 0
    """Rows that its actors finished."""
    images_per_second: float | None = None
    """Rate since the driver began; null without images."""


class ShardFileRecord(Record):
    """The tar that a file of votes is made from."""

    name: str
    """Base name of the tar."""
    size: int | None = None
    """Size of the tar, in bytes."""
    fingerprint: str | None = None
    """Changes when the content may have changed: an ETag, or path and modification time."""


class AdoptedFrom(Record):
    """Where the rows of a file come from that were taken over from another run."""

    run_id: str
    """The run that published them."""
    file: str
    """The name of its file, relative to that run."""
    sha256: str
    """SHA-256 of that file, in hex."""


class FileMetadata(Record):
    """What a file of votes records about itself."""

    json_style = _SORTED

    run_id: str
    """The run that the file belongs to."""
    shard: ShardFileRecord | None = None
    """The tar."""
    shard_sha256: str | None = None
    """SHA-256 of the tar, in hex."""
    votes_version: int | None = None
    """Of the code that cast the votes; raised when other code would cast other votes."""
    geometry: dict[str, Any] = Field(default={})
    """The job's ablation, and its crop in pixels."""
    images_per_batch: int | None = None
    """Number of images that were voted on together."""
    system_members: int = 0
    """Files in the tars that operating systems added."""
    samples_without_image: int = 0
    """Samples with a label or another image suffix, but without an image that `images.image` names."""
    suffixes_without_image: Texts = ()
    """Suffixes of the members of these samples."""
    rotated_images: int = 0
    """Images whose EXIF orientation says that the stored pixels are not upright."""
    seconds: float | None = None
    """Seconds from fetching the tar to the table."""
    versions: dict[str, str] | None = None
    """Versions of Python, smoothcert and the libraries that cast the votes."""
    decoder: str | None = None
    """The library that decoded the images."""
    device: str | None = None
    """The device that computed the votes."""
    columns_sha256: str | None = None
    """SHA-256 over the values of the columns, in hex (workers/runs/votes_table.py)."""
    adopted_from: AdoptedFrom | None = None
    """The file whose rows these are; null if the votes were computed for this run."""

    @property
    def environment(self) -> dict[str, Any]:
        """What produced the votes besides code and weights."""
        return {key: getattr(self, key) for key in ENVIRONMENT}

    @property
    def left_out(self) -> LeftOut:
        """What the tar holds that is not in the run."""
        return LeftOut(self.system_members, self.samples_without_image, frozenset(self.suffixes_without_image))


class TrainingRecord(Record):
    """training.json: what a training is made from."""

    error = RequestError
    remedy = "restore it, or use another name"
    json_style = _INDENTED

    training: dict[str, Any]
    """The training file with all defaults. Plain JSON, because its keys change between versions."""
    identity: dict[str, Any]
    """What determines the weights (manifests/training.py)."""
    images: Counts | None = None
    """Number of images of each tar; null if they were not counted."""

    def as_json(self) -> dict[str, Any]:
        """The keys of the file, its URLs without the keys that they may hold."""
        content = super().as_json()
        content["training"] = _recorded_job(content["training"])
        return content
