"""What a run is on disk: its files by name, what run.json and _SUCCESS say, and how complete it is.

    OUTPUT/RUN_ID/run.json                       the job, its identity, the shards; written first, once
    OUTPUT/RUN_ID/votes/00000-NAME.parquet       one a shard, published once, whole
    OUTPUT/RUN_ID/_SUCCESS                       figures and the SHA-256 of every file; written last

State lives in storage alone. Not covered: making a run (pipeline/certify/); reading the votes (published.py).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.identity import identity_of, run_id_of
from smoothcert.manifests.job import Job, Storage
from smoothcert.manifests.names import listed
from smoothcert.manifests.shards import Shard, instead_of
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.storage.store import AnyStore, Store

_LOOKED_THROUGH = 20  # folders in which an error looks for runs
OF_A_SHARD = ("name", "url", "size", "fingerprint", "images")


@dataclass(frozen=True)
class Run:
    """Results of one identity: where they are and how complete.

    Attributes:
        url: OUTPUT/RUN_ID.
        record: what run.json says.
        store: that holds it.
    """

    url: str
    record: Mapping[str, Any]
    store: Store

    @property
    def run_id(self) -> str:
        return str(self.record["run_id"])

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def partial(self) -> bool:
        return bool(self.record["partial"])

    @property
    def checkpoint_sha256(self) -> str:
        return str(self.record["checkpoint"]["sha256"])

    @cached_property
    def job(self) -> Job:
        """The job that began the run.

        Raises:
            RequestError: run.json holds none that this version understands, or one that did not give the run its id.
        """
        try:
            job = Job.model_validate(self.record["job"])
            checkpoint, identity = self.record["checkpoint"], dict(self.record["identity"])
            given = identity_of(
                job,
                [_shard(entry) for entry in self.record["shards"]],
                checkpoint_sha256=checkpoint["sha256"],
                checkpoint_key=checkpoint["key"],
                limit=job.images.limit if self.partial else None,
            )
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise RequestError(f"{self.url}/run.json: its job is not valid, first at {where}; restore it") from None
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{self.url}/run.json is damaged ({error!r}); restore it") from None
        if given | {"votes_version": identity.get("votes_version")} != identity or run_id_of(identity) != self.run_id:
            raise RequestError(
                f"{self.url}/run.json contradicts itself: its job does not give the id {self.run_id} (`smoothcert "
                "verify` says where); restore it"
            )
        return job

    @cached_property
    def tasks(self) -> tuple[ShardTask, ...]:
        """The shards of which at least one image counts, in order."""
        return tuple(
            ShardTask(index, _shard(shard), shard["limit"])
            for index, shard in enumerate(self.record["shards"])
            if shard["limit"] != 0
        )

    def published(self) -> set[str]:
        """Names of the published files, relative to the run."""
        return {f"votes/{Path(entry.url).name}" for entry in self.store.files(f"{self.url}/votes")}

    def is_published(self, task: ShardTask) -> bool:
        return self.store.find(f"{self.url}/{task.file_name}") is not None

    def missing(self) -> tuple[ShardTask, ...]:
        published = self.published()
        return tuple(task for task in self.tasks if task.file_name not in published)

    def success(self) -> dict[str, Any] | None:
        """What _SUCCESS says, or None where the run has none.

        Raises:
            RunError: it is damaged.
        """
        url = f"{self.url}/_SUCCESS"
        if self.store.find(url) is None:
            return None
        try:
            success = json.loads(self.store.read(url))
            _ = dict(success["files"]), int(success["rows"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(damaged(url, error)) from None
        return dict(success)

    def complete(self) -> bool:
        """Whether every shard is published and _SUCCESS says so.

        Raises:
            RunError: _SUCCESS is damaged.
        """
        return self.success() is not None and not self.missing()


def _shard(entry: Mapping[str, Any]) -> Shard:
    return Shard(**{name: entry[name] for name in OF_A_SHARD})


def damaged(url: str, error: Exception) -> str:
    """What to say of a published file that cannot be read."""
    said = " ".join(str(error).split())
    return f"{url} is damaged ({said}); `smoothcert repair` the run, then run the same command again"


def find_run(url: str, store: Store) -> Run | None:
    """The run at a URL, or None where there is no run.json.

    Raises:
        RequestError: its run.json cannot be read.
    """
    record_url = f"{url}/run.json"
    if store.find(record_url) is None:
        return None
    try:
        run = Run(url, json.loads(store.read(record_url)), store)
        _ = run.tasks, run.run_id, run.name, run.partial
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{record_url} is damaged ({error!r}); move the run away and start again") from None
    return run


def open_run(url: str, storage: Storage = Storage()) -> Run:  # noqa: B008  frozen
    """The run at a URL that a user named, reached as `storage` says.

    Raises:
        RequestError: there is none.
    """
    url = url.rstrip("/") if "://" in url else str(Path(url).absolute())
    store = AnyStore(storage)
    run = find_run(url, store)
    if run is None:
        raise RequestError(f"{url}: no run here, {_instead_of_run(url, store)}")
    return run


def _instead_of_run(url: str, store: Store) -> str:
    """Why there is none, and which there are."""
    if store.listing(url, most=1) is None:
        return f"for there is no such folder; {instead_of(url, store)}"
    below = store.folders(url)[:_LOOKED_THROUGH]
    if runs := [folder for folder in below if store.find(f"{folder}/run.json") is not None]:
        return f"but in folders of it; name one: {url}/RUN_ID with RUN_ID of {listed(Path(run).name for run in runs)}"
    return "for there is no run.json; name OUTPUT/RUN_ID (`smoothcert runs OUTPUT` lists them)"
