"""One line for what a web server or the network does wrong."""

import socket
import ssl

import pytest
from urllib3 import exceptions as http

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.workers.storage.http_client import HttpClient, Source
from smoothcert.workers.storage.http_errors import error_of, explained

URL = "https://example.org/a.tar"


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (401, RequestError, "the server refuses it (401 Unauthorized); log in"),
        (403, RequestError, "the server refuses it (403 Forbidden); log in"),
        (404, RequestError, "does not exist (404 Not Found); correct the URL"),
        (410, RequestError, "does not exist (410 Gone); correct the URL"),
        (418, RequestError, "the server answers 418 I'm a Teapot; correct the URL"),
        (429, RunError, "the server gets too many requests (429 Too Many Requests, 5 attempts); try again later"),
        (500, RunError, "the server fails (500 Internal Server Error, 5 attempts); try again later"),
        (503, RunError, "the server fails (503 Service Unavailable, 5 attempts); try again later"),
        (522, RunError, "the server fails (522, 5 attempts); try again later"),
    ],
)
def test_each_status_has_its_line(status: int, kind: type[SmoothcertError], text: str) -> None:
    """Only what another attempt may change is a RunError."""
    error = error_of(status, URL, "log in", 5)
    assert (type(error), str(error)) == (kind, f"{URL}: {text}")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (http.ResponseError("too many redirects"), RequestError, "the server answers only with redirects; correct"),
        (http.LocationParseError("x"), RequestError, "correct the URL"),
        (http.SSLError(ssl.SSLCertVerificationError("self-signed")), RunError, "SSL_CERT_FILE names the file"),
        (http.SSLError("WRONG_VERSION_NUMBER"), RunError, "check the URL and the network"),
        (http.ProtocolError("Connection aborted."), RunError, "Connection aborted.; check the URL and the network"),
    ],
)
def test_each_error_of_the_network_has_its_line(error: Exception, kind: type[SmoothcertError], text: str) -> None:
    """Also if it is the reason why urllib3 gave up."""
    for raised in (error, http.MaxRetryError(None, "/a.tar?sig=abc", error)):  # type: ignore[arg-type]
        with pytest.raises(SmoothcertError) as found, explained(f"{URL}?sig=abc"):
            raise raised
        assert type(found.value) is kind
        assert text in str(found.value)
        assert "abc" not in str(found.value)


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is closed."""
    monkeypatch.setattr("smoothcert.workers.storage.http_client._BACKOFF_S", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.tar"
    with pytest.raises(RunError) as found:
        HttpClient().read(Source(url, url, {}, ""))
    assert "Connection refused; check the URL and the network" in str(found.value)
    assert "object at 0x" not in str(found.value)
    assert "\n" not in str(found.value)
