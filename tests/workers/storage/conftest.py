"""Buckets on a real S3 server and in this process, and a server that refuses every request."""

import os
from collections.abc import Iterator

import boto3
import moto
import pytest

from smoothcert.workers.storage import store as storage
from tests.helpers.refusing_s3 import Refusing


@pytest.fixture
def bucket_url(bucket: str) -> str:
    """A new bucket on the real server."""
    return f"s3://{bucket}"


@pytest.fixture(params=["radosgw", "moto"])
def either(request: pytest.FixtureRequest) -> str:
    """A new bucket on either server."""
    url: str = request.getfixturevalue("bucket_url" if request.param == "radosgw" else "in_moto")
    return url


@pytest.fixture
def any_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that moto, and a server that refuses all, take."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._s3.cache_clear()


@pytest.fixture
def in_moto(any_keys: None) -> Iterator[str]:
    """A new bucket in this process."""
    with moto.mock_aws():
        boto3.client("s3").create_bucket(Bucket="test")
        yield "s3://test"


@pytest.fixture
def refusing(any_keys: None) -> Iterator["Refusing"]:
    """A server that refuses every request."""
    with Refusing() as server:
        yield server
