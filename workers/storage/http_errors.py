"""Errors of web servers in one line: what the server says, and what to do."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from urllib3 import exceptions as http

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.names import one_line

MISSING = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
BUSY = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
"""Another attempt may give another answer."""

_CHECK_NETWORK = "check the URL and the network, and try again"
_OBJECT = re.compile(r"<[^>]*>: |\(Caused by .*|\w*Connection(?:Pool)?\([^)]*\): ")  # says nothing to a user


def error_of(status: int, name: str, access: str, attempts: int) -> RequestError | RunError:
    """The error for an answer that is not the file.

    Args:
        status: of the answer.
        name: the URL as the user knows it.
        access: what to do if the server refuses.
        attempts: how often it was asked.
    """
    says = f"{status} {_phrase(status)}".rstrip()
    if status in DENIED:
        return RequestError(f"{name}: the server refuses it ({says}); {access}")
    if status in MISSING:
        return RequestError(f"{name}: does not exist ({says}); correct the URL")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RunError(f"{name}: the server gets too many requests ({says}, {attempts} attempts); try again later")
    if status in BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return RunError(f"{name}: the server fails ({says}, {attempts} attempts); try again later")
    return RequestError(f"{name}: the server answers {says}; correct the URL")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn errors of urllib3 into one line.

    Raises:
        RequestError: another attempt would not help.
        RunError: another attempt may help; the server, the network or this machine failed.
    """
    try:
        yield
    except http.HTTPError as error:
        reason = error.reason if isinstance(error, http.MaxRetryError) and error.reason is not None else error
        raise _of(reason, name) from None


def _of(reason: BaseException, name: str) -> RequestError | RunError:
    text = _OBJECT.sub("", one_line(reason))
    match reason:
        case http.SSLError() if "WRONG_VERSION_NUMBER" not in text:
            now = os.environ.get("SSL_CERT_FILE") or "not set"
            return RunError(
                f"{name}: {text}; for an authority of your own, SSL_CERT_FILE names the file with its certificate "
                f"(now: {now})"
            )
        case http.ResponseError():
            return RequestError(f"{name}: the server answers only with redirects; correct the URL")
        case http.LocationValueError() | http.URLSchemeUnknown():
            return RequestError(f"{name}: {text}; correct the URL")
    return RunError(f"{name}: {text}; {_CHECK_NETWORK}")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # of a server's own
        return ""
