"""The verdict of a night to a webhook: JSON, or the message that Slack expects.

    {"text", "suite", "exit_code", "verdict", "night", "entries": [{"entry", "state", "verdict", "sentence", "run_id"}]}

The URL of a webhook is a secret: whoever has it can write there. So no message names more of it than the host.
A webhook never holds a night up: after 10 seconds in all it goes on.

Not covered: the words (sentences.py).
"""

import json
import logging
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import exceptions as http

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import printable
from smoothcert.manifests.version import __version__
from smoothcert.pipeline.nightly.records import NightRecord
from smoothcert.pipeline.nightly.sentences import verdict_of

TIMEOUT_S = 10.0
_SLACK = ("hooks.slack.com", "hooks.slack-gov.com")
_AS_SLACK = "slack"  # the fragment of another server's URL that asks for Slack's form, as Mattermost takes it
logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings and debug lines show URLs


@dataclass(frozen=True)
class Webhook:
    """Where a verdict goes.

    Attributes:
        host: which may be shown.
        url: which may not.
        slack: whether it takes the form of Slack.
        auth: user and password of the URL, if it has them.
    """

    host: str
    url: str = field(repr=False)
    slack: bool = False
    auth: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> "Webhook":
        """The webhook at a URL.

        Raises:
            RequestError: it is no URL of a web server.
        """
        try:
            parts = urllib3.util.parse_url(url)
        except http.LocationParseError:
            parts = urllib3.util.Url()
        if parts.scheme not in ("http", "https") or not parts.host:
            raise RequestError("--notify: is no URL of a web server; it must begin with https:// or http://")
        slack = parts.host in _SLACK or parts.fragment == _AS_SLACK
        return cls(parts.host, parts._replace(auth=None, fragment=None).url, slack, parts.auth)

    def post(self, night: NightRecord, exit_code: int) -> str | None:
        """Post the verdict; gives what went wrong, a line without the URL, or None."""
        outcome: list[str | None] = []
        sending = threading.Thread(target=lambda: outcome.append(self._send(night, exit_code)), daemon=True)
        sending.start()
        sending.join(TIMEOUT_S)  # a timeout of urllib3 counts from byte to byte, and not while a name is resolved
        failure = outcome[0] if outcome else f"gave no answer within {TIMEOUT_S:g} s"
        return None if failure is None else f"the verdict did not reach --notify: {printable(self.host)} {failure}"

    def _send(self, night: NightRecord, exit_code: int) -> str | None:
        body = body_of(night, exit_code)
        content = {"text": _for_slack(body["text"])} if self.slack else body
        headers = {"Content-Type": "application/json", "User-Agent": f"smoothcert/{__version__}"}
        if self.auth is not None:
            headers |= urllib3.make_headers(basic_auth=self.auth)
        try:
            with self._connections() as pool:
                answer = pool.request(
                    "POST",
                    self.url,
                    body=json.dumps(content).encode(),
                    headers=headers,
                    timeout=urllib3.Timeout(total=TIMEOUT_S),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
                answer.close()
        except Exception as error:  # nothing may end the night; the text of the error names the URL
            return _in_words(error)
        status = answer.status
        return None if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else f"answered {status}"

    def _connections(self) -> urllib3.PoolManager:
        """Through the proxy of the environment, if it names one for this host."""
        proxy = None if proxy_bypass(self.host) else getproxies().get(self.url.partition(":")[0])
        if proxy is None:
            return urllib3.PoolManager()
        auth = urllib3.util.parse_url(proxy).auth
        return urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=auth))


def body_of(night: NightRecord, exit_code: int) -> dict[str, Any]:
    """What is posted; `text` alone says it all."""
    verdict = verdict_of(night.entries)
    return {
        "text": "\n".join([f"{night.suite}: {verdict}", *(one.sentence for one in night.entries)]),
        "suite": night.suite,
        "exit_code": exit_code,
        "verdict": verdict,
        "night": night.night,
        "entries": [
            {name: getattr(one, name) for name in ("entry", "state", "verdict", "sentence", "run_id")}
            for one in night.entries
        ],
    }


def _for_slack(text: str) -> str:
    """Slack reads < as the start of a link or of a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _in_words(error: Exception) -> str:
    if isinstance(error, http.TimeoutError) and not isinstance(error, http.NewConnectionError):  # refused is no timeout
        return f"gave no answer within {TIMEOUT_S:g} s"
    if isinstance(error, http.SSLError):
        return "has a certificate that is not trusted"
    if isinstance(error, http.HTTPError):
        return "cannot be reached, or broke off"
    return f"failed ({type(error).__name__})"
