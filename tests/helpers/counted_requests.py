"""Counts what a store asks an S3 server: requests by kind, and bytes of the answers."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import moto
import pytest

from smoothcert.manifests.job import Storage
from smoothcert.workers.storage.s3_store import S3Store

KINDS = {"ListObjectsV2": "LIST", "HeadObject": "HEAD", "GetObject": "GET", "PutObject": "PUT"}


class Counted:
    """What a store asks its server, while it is counted.

    Attributes:
        requests: number of requests of each kind; of a part of a file: `GET range`.
        received: bytes of the answers.
    """

    def __init__(self) -> None:
        self.requests = Counter[str]()
        self.received = 0

    def __call__(self, http_response: Any, model: Any, **_: Any) -> None:
        kind = KINDS.get(model.name, model.name)
        self.requests["GET range" if http_response.status_code == 206 else kind] += 1
        if kind != "HEAD":
            size = http_response.headers.get("content-length")
            self.received += len(http_response.content) if size is None else int(size)


@contextmanager
def counted(store: S3Store) -> Iterator[Counted]:
    """Count what the store asks until the context ends."""
    count, events = Counted(), store._client.meta.events
    events.register("after-call.s3", count)
    try:
        yield count
    finally:
        events.unregister("after-call.s3", count)


@contextmanager
def store_in_moto() -> Iterator[S3Store]:
    """A store whose server is in this process and has a bucket, `s3://bucket`."""
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        store = S3Store(Storage(region="us-east-1"))
        store._client.create_bucket(Bucket="bucket")
        yield store


def copy_to(store: S3Store, folder: Path, url: str) -> None:
    """Copy the files of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.replace(f"{url}/{path.relative_to(folder)}", path.read_bytes())
