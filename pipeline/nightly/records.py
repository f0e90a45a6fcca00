"""What the files of OUTPUT/history hold, as frozen records.

    file                  record             JSON
    nights/NIGHT.json     NightRecord        indented
    accepted/....json     AcceptanceRecord   indented

Not covered: how a record is read and written (workers/runs/json_file.py); where the files lie (history.py).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.runs.json_file import Record
from smoothcert.workers.runs.records import FiguresRecord, Texts

_INDENTED: Mapping[str, Any] = {"indent": 1}
_FROM_LIST = Field(strict=False)  # JSON has lists where a record has tuples

Seconds = Annotated[float, Field(allow_inf_nan=False)]

Verdict = Literal["gates hold", "no gates", "gate tripped", "not trusted", "not compared", "refused", "unfinished"]
By = Literal["accept", "first", "previous"]


class ImageRecord(Record):
    """An image."""

    shard: str
    """Name of the tar."""
    key: str
    """Of the image."""


class GateRecord(Record):
    """A limit of a gate."""

    text: str
    """What was found and what is allowed."""
    passed: bool
    """Whether it holds."""
    images: Annotated[tuple[ImageRecord, ...], _FROM_LIST] = ()
    """The first images behind a limit that does not hold."""
    images_in_all: int = 0
    """Number of images behind a limit that does not hold."""


class ChangeRecord(Record):
    """What was lost and gained since the baseline, of the images that both runs have."""

    measure: Literal["certified", "smoothed", "clean"]
    """As in a gate file."""
    patch: Annotated[tuple[int, int] | None, _FROM_LIST] = None
    """Of measure certified: height and width in pixels."""
    rule: str | None = None
    """Of measure certified: exact, margin or published."""
    certificate: str | None = None
    """Of measure certified: recovery or detection."""
    lost: int
    """Number of images that have it in the baseline alone."""
    gained: int
    """Number of images that have it in the new run alone."""


class CostRecord(Record):
    """What a night did for a run."""

    computed: int = 0
    """Number of shards whose votes were computed."""
    adopted: dict[str, int] = Field(default={})
    """Number of shards that were taken over, by the id of the run that they came from."""
    images: int = 0
    """Number of images of the computed shards."""
    seconds: Seconds = 0.0
    """From the first shard to the last."""
    turn_seconds: Seconds = 0.0
    """The sum, over all shards, of the time in which the model worked or waited for images."""
    waited_seconds: Seconds = 0.0
    """The part of it spent waiting for decoded images."""
    bytes: int | None = None
    """Size of the run's files of votes; null if there is no run."""


class EntryRecord(Record):
    """An entry of a suite in one night."""

    entry: str
    """Its name in the suite file."""
    job: str
    """Name of its job."""
    run_id: str | None = None
    """Of its run; null if it was refused before that was known."""
    state: Literal["complete", "unfinished", "refused"]
    """Of its run; unfinished: the same command continues it; refused: the request is wrong."""
    verdict: Verdict
    """The state, and of a complete run what its gates say."""
    sentence: str
    """What the night says about it."""
    problems: Texts = ()
    """Why the run is not complete, or its figures cannot be trusted, or it is not compared; a line each."""
    partial: bool = False
    """Whether images.limit leaves images out."""
    figures: FiguresRecord | None = None
    """Of the published files."""
    baseline: str | None = None
    """Id of the run that it was compared with; its own if nothing changed; null without a comparison."""
    becomes: Literal["first", "previous"] | None = None
    """Why the run becomes the baseline; null: it does not."""
    paired: int | None = None
    """Number of images that both runs have."""
    only_baseline: int | None = None
    """Number of images that only the baseline has."""
    only_new: int | None = None
    """Number of images that only the new run has."""
    changes: Annotated[tuple[ChangeRecord, ...], _FROM_LIST] = ()
    """What was lost and gained, by measure."""
    gates: Annotated[tuple[GateRecord, ...], _FROM_LIST] = ()
    """What the gates say."""
    cost: CostRecord = CostRecord()
    """What was done for it in this night."""
    report: str | None = None
    """The page about the run, relative to the history; of an earlier night if the run is of that night."""
    comparison: str | None = None
    """The page about the comparison, relative to the history; null if nothing changed."""


class NightRecord(Record):
    """nights/NIGHT.json: one night of a suite."""

    remedy = "restore it, or move it away"
    json_style = _INDENTED

    night: str
    """Name of the night: when it began, and digits that no other night has."""
    suite: str
    """Name of the suite."""
    began: str
    """When the command began, ISO 8601."""
    ended: str
    """When all entries were judged, ISO 8601."""
    seconds: Seconds
    """Between the two."""
    version: str
    """Of smoothcert."""
    exit_code: int
    """0 all gates hold; 1 a gate tripped, or figures cannot be trusted; 2 the request is wrong; 3 a run did not
    finish."""
    entries: Annotated[tuple[EntryRecord, ...], _FROM_LIST]
    """In the order of the suite file."""

    @field_validator("began")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value


class AcceptanceRecord(Record):
    """accepted/....json: a run becomes the baseline of an entry. The last one of an entry counts."""

    error = RequestError
    remedy = "restore it, or name the baseline again with `smoothcert accept RUN`"
    json_style = _INDENTED

    suite: str
    """Name of the suite."""
    entry: str
    """Name of the entry."""
    run_id: str
    """The baseline from now on."""
    at: str
    """When, ISO 8601."""
    by: By
    """accept: a person said so; first: there was no baseline; previous: its gates held."""
