"""Whatever an S3 server refuses or leaves out, one line says what the server says and what to do."""

import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.job import Images, Storage
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.storage.s3_errors import code_of, explained
from smoothcert.workers.storage.s3_store import S3Store
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.refusing_s3 import Refusing
from tests.helpers.store_calls import all_calls


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "correct the secret key"),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, "correct the access key"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}, "credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "and the network"),
        ({"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, "and the network"),
        ({"AWS_ENDPOINT_URL": "no url"}, "Invalid endpoint"),
    ],
)
def test_a_refusal_is_one_line_within_30_seconds(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    """Wrong keys, no keys, and a server that is missing."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    start = time.monotonic()
    with pytest.raises(SmoothcertError, match=says) as error:
        S3Store(Storage()).files(f"{bucket_url}/data")
    assert time.monotonic() - start < 30
    assert "\n" not in str(error.value)


def test_error_says_that_the_server_is_not_s3(refusing: Refusing) -> None:
    """A web page with status 200, as of a login or a wrong port, is neither an empty folder nor a file."""
    refusing.status, refusing.body = 200, b"<!DOCTYPE html><html><body>Log in</body></html>"
    store = S3Store(Storage(endpoint_url=f"http://{refusing.address}"))
    for call in (lambda: store.find("s3://test/a.tar"), lambda: store.listing("s3://test/data")):
        with pytest.raises(SmoothcertError, match=r"^s3://test/\S+ ") as error:
            call()
        assert "storage.endpoint_url" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_server_that_is_silent_is_given_up(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that accepts no more connections gives one line within 30 seconds."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{full.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(RunError, match="and the network"):
            S3Store(Storage()).find(f"{bucket_url}/a.tar")
        assert time.monotonic() - start < 30
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b""),
        (403, b"<Error/>"),
        (403, b"<Error><Code>AccessDenied</Code><Message/></Error>"),
        (403, b"<Error><Code/><Message/></Error>"),
        (403, b"<html>forbidden</html>"),
        (400, b"not XML"),
        (404, b"<Error><Code/></Error>"),
        (301, b""),
    ],
)
def test_error_about_an_answer_without_text_has_its_status(refusing: Refusing, status: int, body: bytes) -> None:
    """The line has the code or the status, and no None for what the server leaves out."""
    refusing.status, refusing.body = status, body
    store = S3Store(Storage(endpoint_url=f"http://{refusing.address}"))
    for name, call in all_calls(store, "s3://bucket").items():
        with pytest.raises(SmoothcertError) as error:
            call()
        said = str(error.value)
        assert "None" not in said and "\n" not in said, (name, said)
        assert status == 301 or str(status) in said or "AccessDenied" in said or "busy" in said, (name, said)
        assert said.startswith("s3://bucket") and refusing.address not in said, (name, said)


def test_error_names_what_the_user_wrote(refusing: Refusing) -> None:
    """Not a file that was only looked for in a folder of tars."""
    store = AnyStore(Storage(endpoint_url=f"http://{refusing.address}"))
    for spec in ("s3://bucket/data", "s3://bucket/data/", "s3://bucket/a.tar", "s3://bucket/data/*.tar"):
        with pytest.raises(RequestError) as error:
            find_shards(Images(shards=spec), store)
        assert "_info.json" not in str(error.value)
        assert str(error.value).startswith(f"{spec.removesuffix('/*.tar').rstrip('/')}: S3 says 403")


def test_error_says_how_to_trust_a_certificate(any_keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy works. The error names the server and not the request."""
    names = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 {names}"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with Refusing() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        settings = Storage(endpoint_url=f"https://{server.address}")
        for bundle, says in (
            (None, r"AWS_CA_BUNDLE names the file .*\(now: not set\)"),
            ("/nowhere.pem", r"AWS_CA_BUNDLE names the file .*\(now: /nowhere\.pem\)"),
            (str(tmp_path / "cert.pem"), "S3 says 403"),
        ):
            if bundle:
                monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
            with pytest.raises(SmoothcertError, match=says) as error:
                S3Store(settings).files("s3://bucket/data")
            assert "list-type" not in str(error.value)


def _refusal(code: str, message: str = "", status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


_REFUSALS = [
    # another attempt does not help
    (_refusal("NoSuchKey"), RequestError, "does not exist (NoSuchKey); correct the bucket or the key"),
    (_refusal("", status=404), RequestError, "does not exist (404); correct the bucket or the key"),
    (_refusal("NoSuchBucket", "gone"), RequestError, "S3 says NoSuchBucket gone; correct the bucket's name, or create"),
    (_refusal("", status=403), RequestError, "S3 says 403; check the credentials of this machine"),
    (_refusal("AccessDenied", "no"), RequestError, "S3 says AccessDenied no; check the credentials of this machine"),
    (_refusal("ExpiredToken"), RequestError, "S3 says ExpiredToken; renew the credentials of this machine"),
    (_refusal("InvalidObjectState"), RequestError, "restore the object from its archive"),
    (_refusal("", status=301), RequestError, "correct storage.region or storage.endpoint_url"),
    # another attempt, or another machine, may help
    (_refusal("SlowDown", "later", 503), RunError, "S3 says SlowDown later; try again later"),
    (_refusal("", status=500), RunError, "S3 says 500; try again later"),
    (_refusal("RequestTimeTooSkewed"), RunError, "set the clock of this machine"),
]


@pytest.mark.parametrize(("refusal", "kind", "says"), _REFUSALS, ids=[code_of(refusal) for refusal, _, _ in _REFUSALS])
def test_an_error_says_whether_another_attempt_may_help(
    refusal: ClientError, kind: type[SmoothcertError], says: str
) -> None:
    """A RequestError is final; after a RunError the shard is tried again. Each has its remedy."""
    with pytest.raises(SmoothcertError) as error, explained("s3://b/k"):
        raise refusal
    assert type(error.value) is kind
    assert str(error.value).startswith("s3://b/k: ")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (KeyError("ContentLength"), "not as S3 does (without 'ContentLength'); correct storage.endpoint_url"),
        (RecursionError(), "S3 answers only with redirects; correct storage.region or storage.endpoint_url"),
        (ValueError("Invalid endpoint: x"), "Invalid endpoint: x; correct `storage` or the credentials"),
    ],
)
def test_what_s3_never_answers_is_an_error_of_the_request(raised: Exception, says: str) -> None:
    """A server of another kind, a loop of redirects and an endpoint that is no URL are mistakes in `storage`."""
    with pytest.raises(RequestError) as error, explained("s3://b/k"):
        raise raised
    assert str(error.value).startswith("s3://b/k: ")
    assert str(error.value).endswith(says)


def test_other_errors_pass() -> None:
    """A defect keeps its traceback."""
    with pytest.raises(ZeroDivisionError), explained("s3://b/k"):
        raise ZeroDivisionError


def test_an_error_names_the_server_and_hides_the_request() -> None:
    """The query of a signed request is long, and may hold a signature."""
    error = EndpointConnectionError(endpoint_url="https://host:9/bucket?list-type=2&X-Amz-Signature=abc")
    with pytest.raises(RunError) as found, explained("s3://b/k"):
        raise error
    assert "https://host:9" in str(found.value)
    assert "Signature" not in str(found.value)
