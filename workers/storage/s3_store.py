"""Objects in S3, or in another server with the same interface.

An object is published by one PUT with `If-None-Match: *`, which the server refuses with 412 if the key exists. It is a
single PUT because servers ignore the condition when a multipart upload ends. A 412 may also mean that our own PUT
succeeded but its answer was lost: the caller compares the existing object with its own.

Credentials come from each machine's own standard chain.

Not covered: servers and buckets that ignore the condition; the driver detects them when it
writes run.json (pipeline/certify/begin.py). The texts of errors (s3_errors.py).
"""

import mimetypes
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore import UNSIGNED
from botocore import exceptions as boto
from botocore.config import Config

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.manifests.job import Storage
from smoothcert.workers.storage.disk import naming_a_full_disk
from smoothcert.workers.storage.listed import Listed
from smoothcert.workers.storage.s3_errors import BUSY, EXISTS, PAST_END, code_of, explained
from smoothcert.workers.storage.temporary import remove_abandoned, temporary_folder

# An unreachable server is given up within 30 s: five attempts of 3 s, and the waits between them.
_CONNECT_S, _READ_S, _ATTEMPTS = 3, 60, 5
_CONNECTIONS = 16  # kept open; threads beyond these open and close one for each request
_CUT_SHORT = (boto.ResponseStreamingError, boto.IncompleteReadError, boto.ReadTimeoutError)


_LISTING_FIELDS = {"IsTruncated", "KeyCount", "Name", "Contents", "CommonPrefixes"}  # an answer of S3 has some


class _Place(NamedTuple):
    bucket: str
    key: str


class S3Store(Listed):
    """Objects of any bucket that the settings reach.

    Args:
        settings: `storage` of a job; the environment fills in what it leaves out.
    Raises:
        RequestError: the profile does not exist.
    """

    def __init__(self, settings: Storage) -> None:
        with explained("storage"):
            session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
            self._client = session.client(
                "s3",
                endpoint_url=settings.endpoint_url,
                config=Config(
                    signature_version=UNSIGNED if settings.anonymous else None,
                    connect_timeout=_CONNECT_S,
                    read_timeout=_READ_S,
                    max_pool_connections=_CONNECTIONS,
                    retries={"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
                    # Servers other than AWS may not know the newer checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        if settings.requester_pays:
            self._client.meta.events.register("before-parameter-build.s3", _pay)
        remove_abandoned()

    def find(self, url: str) -> FileEntry | None:
        place = _place_of(url)
        if not place.key:
            return None  # a bucket is a folder
        with explained(url):
            try:
                head = self._client.head_object(Bucket=place.bucket, Key=place.key)
            except boto.ClientError as error:
                if code_of(error) not in ("400", "403", "404"):
                    raise
                # The answer to a HEAD has no body that says what is missing or why it is refused. A listing has one.
                self._client.list_objects_v2(Bucket=place.bucket, Prefix=place.key, MaxKeys=1)
                if code_of(error) == "404":
                    return None
                raise
            return FileEntry(url, head["ContentLength"], head["ETag"].strip('"'), head["LastModified"].timestamp())

    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        """A folder exists if it holds any key; a bucket always does."""
        bucket, key = _place_of(folder)
        prefix = f"{key.rstrip('/')}/" if key else ""
        files, folders, exists = list[FileEntry](), list[str](), not key
        with explained(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, Delimiter="/", PaginationConfig={"MaxItems": most}
            )
            for page in pages:
                if not page.keys() & _LISTING_FIELDS:
                    raise KeyError("a listing")
                found, below = page.get("Contents", ()), page.get("CommonPrefixes", ())
                exists |= bool(found or below)
                folders += (f"s3://{bucket}/{one['Prefix'].rstrip('/')}" for one in below)
                # A key that ends with a slash is the folder itself; consoles create such keys.
                files += (_entry(bucket, one) for one in found if not one["Key"].endswith("/"))
        return Listing(files, folders, []) if exists else None

    def pinned(self, url: str) -> str:
        return url

    def read(self, url: str) -> bytes:
        return self._read(url)

    def read_range(self, url: str, start: int, length: int) -> bytes:
        length_asked = max(1, length)  # S3 answers an empty range with the whole object
        return self._read(url, Range=f"bytes={start}-{start + length_asked - 1}")[:length]

    def _read(self, url: str, **options: str) -> bytes:
        place = _place_of(url)
        with explained(url):
            for _ in range(_ATTEMPTS):
                try:
                    body = self._client.get_object(Bucket=place.bucket, Key=place.key, **options)["Body"]
                except boto.ClientError as error:
                    if code_of(error) in PAST_END:
                        return b""
                    raise
                with suppress(*_CUT_SHORT):  # botocore repeats requests, but not if a body breaks off
                    data: bytes = body.read()
                    return data
        raise RunError(f"{url}: the connection broke off in each of {_ATTEMPTS} attempts; check the network")

    @contextmanager
    def local(self, url: str) -> Iterator[Path]:
        """A temporary copy on this machine, removed at the end."""
        place = _place_of(url)
        with temporary_folder() as folder:
            path = folder / posixpath.basename(place.key)[-60:]  # keys may be longer than file names
            with explained(url), naming_a_full_disk(folder.parent, f"set TMPDIR to a folder with room for {url}"):
                self._client.download_file(place.bucket, place.key, str(path))
            yield path

    def publish(self, run_url: str, name: str, data: bytes) -> bool:
        place = _place_of(f"{run_url}/{name}")
        with explained(f"{run_url}/{name}"):
            for _ in range(_ATTEMPTS):
                try:
                    self._client.put_object(**_object(place, data), IfNoneMatch="*")
                    return True
                except boto.ClientError as error:
                    if code_of(error) in EXISTS:
                        return False
                    if code_of(error) not in BUSY:  # another writer is at this key right now
                        raise
        raise RunError(f"{run_url}/{name}: other writers kept it busy through {_ATTEMPTS} attempts; try again")

    def replace(self, url: str, data: bytes) -> None:
        place = _place_of(url)
        with explained(url):
            self._client.put_object(**_object(place, data))

    def move(self, url: str, to: str) -> None:
        place, target = _place_of(url), _place_of(to)
        with explained(url):
            self._client.copy_object(
                Bucket=target.bucket, Key=target.key, CopySource={"Bucket": place.bucket, "Key": place.key}
            )
            self._client.delete_object(Bucket=place.bucket, Key=place.key)

    def remove(self, url: str) -> None:
        place = _place_of(url)
        with explained(url):
            self._client.delete_object(Bucket=place.bucket, Key=place.key)

    def remove_folder(self, url: str) -> None:
        """Nothing to do: a folder ends with its last key."""

    def sweep(self, run_url: str) -> None:
        """Nothing to do: a PUT that fails leaves nothing."""


def _place_of(url: str) -> _Place:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise RequestError(f"{url}: names no bucket; expected s3://BUCKET/KEY")
    return _Place(bucket, key)


def _object(place: _Place, data: bytes) -> dict[str, Any]:
    """What is put. A browser shows a page only if its type says that it is one."""
    kind = mimetypes.guess_type(place.key)[0] or "binary/octet-stream"
    return {"Bucket": place.bucket, "Key": place.key, "Body": data, "ContentType": kind}


def _pay(params: dict[str, Any], model: Any, **_: Any) -> None:
    """Add RequestPayer to every request that takes it, also in a download in parts."""
    if "RequestPayer" in model.input_shape.members:
        params["RequestPayer"] = "requester"


def _entry(bucket: str, listed: dict[str, Any]) -> FileEntry:
    url = f"s3://{bucket}/{listed['Key']}"
    return FileEntry(url, listed["Size"], listed["ETag"].strip('"'), listed["LastModified"].timestamp())
