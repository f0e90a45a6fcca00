"""Errors of S3 in one line: what the server says, and what to do.

An answer may have no code, no message or neither (the answer to a HEAD has no body). Then the HTTP status replaces
them.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore import exceptions as boto

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.names import one_line

NOT_FOUND = {"404", "NoSuchKey"}
EXISTS = {"412", "PreconditionFailed"}
PAST_END = {"416", "InvalidRange"}
BUSY = {"409", "ConditionalRequestConflict", "OperationAborted"}

_DENIED = (
    "check the credentials of this machine, and what they may do (storage.anonymous: true needs none, for public "
    "buckets; storage.requester_pays: true is for buckets whose reader pays)"
)
_REMEDIES = {
    "401": _DENIED,
    "403": _DENIED,
    "AccessDenied": _DENIED,
    "InvalidAccessKeyId": "correct the access key of this machine",
    "SignatureDoesNotMatch": "correct the secret key of this machine",
    "ExpiredToken": "renew the credentials of this machine",
    "NoSuchBucket": "correct the bucket's name, or create it",
    "301": "correct storage.region or storage.endpoint_url",
    "PermanentRedirect": "correct storage.region",
    "AuthorizationHeaderMalformed": "correct storage.region",
    "InvalidObjectState": "restore the object from its archive",
}
_MACHINE_REMEDIES = {"RequestTimeTooSkewed": "set the clock of this machine"}  # another machine may succeed
_CHECK_NETWORK = "check storage.endpoint_url and the network"
_REQUEST_URL = re.compile(r"(https?://[^/\s\"]+)[^\s\"]*")  # a user knows only its server


def code_of(error: boto.ClientError) -> str:
    """The code of an answer, or its HTTP status."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return str(_said(error, "Code") or status)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn errors of boto3 into one line.

    Raises:
        RequestError: another attempt would not help.
        RunError: another attempt may help; the server, the network or this machine failed.
    """
    try:
        yield
    except boto.ClientError as error:
        raise _of_answer(url, error) from None
    except KeyError as error:  # every answer of S3 has this field
        raise RequestError(
            f"{url}: the server answers, but not as S3 does (without {error}); correct storage.endpoint_url"
        ) from None
    except RecursionError:  # botocore follows each redirect with another request
        raise RequestError(f"{url}: S3 answers only with redirects; {_REMEDIES['301']}") from None
    except boto.SSLError as error:
        raise RunError(f"{url}: {_line(error)}; {_trust(error)}") from None
    except (boto.ConnectionError, boto.HTTPClientError, Boto3Error) as error:
        if "maximum recursion depth" in str(error):
            raise RequestError(f"{url}: S3 answers only with redirects; {_REMEDIES['301']}") from None
        raise RunError(f"{url}: {_line(error)}; {_CHECK_NETWORK}") from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise RequestError(
            f"{url}: {_line(error)}; give this machine credentials, or set storage.anonymous: true for a public bucket"
        ) from None
    except boto.ParamValidationError as error:
        raise RequestError(f"{url}: {_line(error)}; correct the URL") from None
    except (boto.BotoCoreError, ValueError) as error:  # ValueError: the endpoint is no URL
        raise RequestError(f"{url}: {_line(error)}; correct `storage` or the credentials") from None


def _of_answer(url: str, error: boto.ClientError) -> RequestError | RunError:
    code = code_of(error)
    if code in NOT_FOUND:
        return RequestError(f"{url}: does not exist ({code}); correct the bucket or the key")
    says = f"{url}: S3 says {code} {_said(error, 'Message')}".rstrip()
    if code in _REMEDIES:
        return RequestError(f"{says}; {_REMEDIES[code]}")
    return RunError(f"{says}; {_MACHINE_REMEDIES.get(code, 'try again later')}")


def _said(error: boto.ClientError, what: str) -> str:
    return str(error.response.get("Error", {}).get(what) or "")


def _trust(error: boto.SSLError) -> str:
    if "WRONG_VERSION_NUMBER" in str(error):  # the server does not speak TLS at this port
        return _CHECK_NETWORK
    now = os.environ.get("AWS_CA_BUNDLE") or "not set"
    return f"for an authority of your own, AWS_CA_BUNDLE names the file with its certificate (now: {now})"


def _line(error: Exception) -> str:
    return _REQUEST_URL.sub(r"\1", one_line(error))
