"""Objects in S3, or in a server that speaks its language.

An object is published by one PUT with `If-None-Match: *`, which the server refuses with 412 if the key exists. A
single PUT, because servers ignore the condition when a multipart upload is completed. A 412 may also be our own PUT
whose answer was lost: who publishes looks at what is there. Credentials come from each machine's own standard chain.

Not covered: servers and buckets that ignore the condition; the driver finds them on run.json (pipeline/plan.py).
"""

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from boto3.exceptions import Boto3Error
from botocore import exceptions as boto
from botocore.config import Config

from manifests.errors import RequestError, RunError
from manifests.job import Storage
from manifests.shards import FileEntry, Listing
from workers.temporary import remove_abandoned, temporary_folder

# A server that cannot be reached is given up within 30 s: five attempts of 3 s, and the waits between them.
_CONNECT_S, _READ_S, _ATTEMPTS = 3, 60, 5
_NOT_FOUND = {"404", "NoSuchKey"}
_EXISTS = {"412", "PreconditionFailed"}
_BUSY = {"409", "ConditionalRequestConflict", "OperationAborted"}
_CUT_SHORT = (boto.ResponseStreamingError, boto.IncompleteReadError, boto.ReadTimeoutError)
_REFUSED = {
    "403": "check the credentials of this machine, and what they may do",
    "AccessDenied": "allow it to these credentials, or use others",
    "InvalidAccessKeyId": "correct the access key of this machine",
    "SignatureDoesNotMatch": "correct the secret key of this machine",
    "ExpiredToken": "renew the credentials of this machine",
    "NoSuchBucket": "correct the bucket's name, or create it",
    "PermanentRedirect": "correct storage.region",
    "AuthorizationHeaderMalformed": "correct storage.region",
}
_OF_THIS_MACHINE = {"RequestTimeTooSkewed": "set the clock of this machine"}  # another one may do better


class _Place(NamedTuple):
    bucket: str
    key: str


class S3Store:
    """Objects of any bucket that the settings reach.

    Args:
        settings: endpoint, region and profile; what is left out comes from the environment.
    Raises:
        RequestError: the profile does not exist.
    """

    def __init__(self, settings: Storage) -> None:
        with _explained("storage"):
            session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
            self._client = session.client(
                "s3",
                endpoint_url=settings.endpoint_url,
                config=Config(
                    connect_timeout=_CONNECT_S,
                    read_timeout=_READ_S,
                    retries={"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
                    # Servers other than AWS may not know the newer checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        remove_abandoned()

    def find(self, url: str) -> FileEntry | None:
        place = _place_of(url)
        if not place.key:
            return None  # a bucket is a folder
        with _explained(url):
            try:
                head = self._client.head_object(Bucket=place.bucket, Key=place.key)
            except boto.ClientError as error:
                if _code(error) not in ("403", "404"):
                    raise
                # The answer to a HEAD has no body: it says neither what is missing nor why it is refused.
                self._client.list_objects_v2(Bucket=place.bucket, Prefix=place.key, MaxKeys=1)
                if _code(error) == "404":
                    return None
                raise
        return FileEntry(url, head["ContentLength"], head["ETag"].strip('"'), head["LastModified"].timestamp())

    def files(self, folder: str) -> list[FileEntry]:
        listing = self.listing(folder)
        return listing.files if listing else []

    def folders(self, folder: str) -> list[str]:
        listing = self.listing(folder)
        return listing.folders if listing else []

    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        """A folder exists if any key lies in it; a bucket always does."""
        bucket, key = _place_of(folder)
        prefix = f"{key.rstrip('/')}/" if key else ""
        files, folders, exists = list[FileEntry](), list[str](), not key
        with _explained(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, Delimiter="/", PaginationConfig={"MaxItems": most}
            )
            for page in pages:
                found, below = page.get("Contents", ()), page.get("CommonPrefixes", ())
                exists |= bool(found or below)
                folders += (f"s3://{bucket}/{one['Prefix'].rstrip('/')}" for one in below)
                # A key with a slash at the end is the folder itself, as consoles make it.
                files += (_entry(bucket, one) for one in found if not one["Key"].endswith("/"))
        return Listing(files, folders, []) if exists else None

    def read(self, url: str) -> bytes:
        place = _place_of(url)
        with _explained(url):
            for _ in range(_ATTEMPTS):
                body = self._client.get_object(Bucket=place.bucket, Key=place.key)["Body"]
                with suppress(*_CUT_SHORT):  # botocore repeats a request, but not for a body that breaks off
                    data: bytes = body.read()
                    return data
        raise RunError(f"{url}: the connection broke off in each of {_ATTEMPTS} attempts; check the network")

    @contextmanager
    def local(self, url: str) -> Iterator[Path]:
        """A copy among this machine's temporary files, removed at the end."""
        place = _place_of(url)
        with temporary_folder() as folder:
            path = folder / posixpath.basename(place.key)
            with _explained(url):
                self._client.download_file(place.bucket, place.key, str(path))
            yield path

    def publish(self, run_url: str, name: str, data: bytes) -> bool:
        place = _place_of(f"{run_url}/{name}")
        with _explained(f"{run_url}/{name}"):
            for _ in range(_ATTEMPTS):
                try:
                    self._client.put_object(Bucket=place.bucket, Key=place.key, Body=data, IfNoneMatch="*")
                    return True
                except boto.ClientError as error:
                    if _code(error) in _EXISTS:
                        return False
                    if _code(error) not in _BUSY:  # another writer is at this key right now
                        raise
        raise RunError(f"{run_url}/{name}: other writers kept it busy through {_ATTEMPTS} attempts; try again")

    def move(self, url: str, to: str) -> None:
        place, target = _place_of(url), _place_of(to)
        with _explained(url):
            self._client.copy_object(
                Bucket=target.bucket, Key=target.key, CopySource={"Bucket": place.bucket, "Key": place.key}
            )
            self._client.delete_object(Bucket=place.bucket, Key=place.key)

    def remove(self, url: str) -> None:
        place = _place_of(url)
        with _explained(url):
            self._client.delete_object(Bucket=place.bucket, Key=place.key)

    def sweep(self, run_url: str) -> None:
        """A PUT that failed leaves nothing."""


def _place_of(url: str) -> _Place:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise RequestError(f"{url}: names no bucket; expected s3://BUCKET/KEY")
    return _Place(bucket, key)


def _entry(bucket: str, listed: dict[str, Any]) -> FileEntry:
    url = f"s3://{bucket}/{listed['Key']}"
    return FileEntry(url, listed["Size"], listed["ETag"].strip('"'), listed["LastModified"].timestamp())


def _code(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what cannot be mended by another attempt into one line; a server's own trouble is a RunError."""
    try:
        yield
    except boto.ClientError as error:
        code = _code(error)
        if code in _NOT_FOUND:
            raise RequestError(f"{url}: does not exist ({code}); correct the bucket or the key") from None
        message = error.response.get("Error", {}).get("Message", "")
        says = f"{url}: S3 says {code} {message}".rstrip()
        if code in _REFUSED:
            raise RequestError(f"{says}; {_REFUSED[code]}") from None
        raise RunError(f"{says}; {_OF_THIS_MACHINE.get(code, 'try again later')}") from None
    except (boto.ConnectionError, boto.HTTPClientError, Boto3Error) as error:
        raise RunError(f"{url}: {' '.join(str(error).split())}; check storage.endpoint_url and the network") from None
    except (boto.BotoCoreError, ValueError) as error:  # ValueError: the endpoint is no URL
        raise RequestError(f"{url}: {' '.join(str(error).split())}; correct `storage` or the credentials") from None
