"""The verdict reaches a webhook, or a notice names its host alone; the night waits 10 seconds at most."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.nightly import notify
from smoothcert.pipeline.nightly.notify import Webhook
from smoothcert.pipeline.nightly.records import EntryRecord
from tests.helpers.nights import complete, made, one_shard, recorded, suite_of
from tests.helpers.ports import closed_port
from tests.pipeline.nightly.conftest import Night

PATH = "/services/SECRET"
NIGHT = recorded(
    1,
    EntryRecord(
        entry="a<b>",
        job="j",
        run_id="1" * 16,
        state="complete",
        verdict="gate tripped",
        sentence="a<b>: GATE & TRIPPED",
    ),
    EntryRecord(
        entry="c", job="j", state="refused", verdict="refused", sentence="c: REFUSED: https://host/x?... is gone"
    ),
    exit_code=1,
)


class Hook(ThreadingHTTPServer):
    """Keeps what is posted. `behaviour`: a status; `hang`: no answer; `slow`: a byte of the answer every 0.2 s; `drop`:
    the connection."""

    daemon_threads = True
    behaviour: int | str = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posted: list[tuple[str, dict[str, str], bytes]] = []
        self.heard: Callable[[], object] = lambda: None
        self.ends = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{PATH}?key=SECRET"

    def handle_error(self, request: object, client_address: object) -> None:
        """The client does not wait for ever."""


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, dict(self.headers), body))
        self.server.heard()
        match self.server.behaviour:
            case int() as status:
                self.send_response(status)
                if status in (301, 302, 307, 308):
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "hang":
                self.server.ends.wait(30)
            case "slow":
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 200:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if self.server.ends.wait(0.2):
                        return
            case "drop":
                self.close_connection = True

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.ends.set()
        server.shutdown()
        thread.join()


def test_the_verdict_is_posted_as_json(hook: Hook) -> None:
    """`text` alone says it all."""
    assert Webhook.of(hook.url).post(NIGHT, 1) is None
    ((path, headers, body),) = hook.posted
    assert path == f"{PATH}?key=SECRET"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "text": "night: GATE TRIPPED: a<b>; REFUSED: c\na<b>: GATE & TRIPPED\nc: REFUSED: https://host/x?... is gone",
        "suite": "night",
        "exit_code": 1,
        "verdict": "GATE TRIPPED: a<b>; REFUSED: c",
        "night": NIGHT.night,
        "entries": [
            {
                "entry": "a<b>",
                "state": "complete",
                "verdict": "gate tripped",
                "sentence": "a<b>: GATE & TRIPPED",
                "run_id": "1" * 16,
            },
            {
                "entry": "c",
                "state": "refused",
                "verdict": "refused",
                "sentence": "c: REFUSED: https://host/x?... is gone",
                "run_id": None,
            },
        ],
    }


def test_slack_gets_its_own_form(hook: Hook) -> None:
    """From a server that says so, nothing but text, in which no name makes a link or calls everyone."""
    assert Webhook.of(f"{hook.url}#slack").post(NIGHT, 1) is None
    ((path, _, body),) = hook.posted
    assert "slack" not in path
    assert json.loads(body) == {
        "text": "night: GATE TRIPPED: a&lt;b&gt;; REFUSED: c\na&lt;b&gt;: GATE &amp; TRIPPED\n"
        "c: REFUSED: https://host/x?... is gone"
    }


@pytest.mark.parametrize(
    ("url", "slack"),
    [
        ("https://hooks.slack.com/services/T/B/x", True),
        ("https://HOOKS.slack.com/services/T/B/x", True),
        ("https://hooks.slack.com.example.org/x", False),
        ("https://example.org/hooks.slack.com", False),
        ("https://example.org/#slack", True),
    ],
)
def test_slack_is_known_by_its_host(url: str, slack: bool) -> None:
    assert Webhook.of(url).slack is slack


@pytest.mark.parametrize(
    "url", ["", "SECRET", "ftp://host/SECRET", "https://", "http:///SECRET", "http://[SECRET", "file:///SECRET"]
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="--notify: is no URL of a web server") as error:
        Webhook.of(url)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("status", [204, 301, 302, 307, 400, 404, 500, 503])
def test_one_request_is_made_whatever_the_answer(hook: Hook, status: int) -> None:
    """No redirect, which could take the verdict elsewhere, and no second attempt."""
    hook.behaviour = status
    failure = Webhook.of(hook.url).post(NIGHT, 1)
    said = None if status == 204 else f"the verdict did not reach --notify: 127.0.0.1 answered {status}"
    assert failure == said
    assert len(hook.posted) == 1


@pytest.mark.parametrize("behaviour", ["hang", "slow"])
def test_a_server_without_an_answer_is_left(hook: Hook, behaviour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that sends a byte again and again, which no timeout of a socket notices."""
    monkeypatch.setattr(notify, "TIMEOUT_S", 1.0)
    hook.behaviour = behaviour
    began = time.monotonic()
    failure = Webhook.of(hook.url).post(NIGHT, 1)
    assert time.monotonic() - began < 3
    assert failure == "the verdict did not reach --notify: 127.0.0.1 gave no answer within 1 s"
    assert notify.TIMEOUT_S == 1.0


def test_a_server_that_is_not_there_or_drops_is_a_notice(hook: Hook) -> None:
    hook.behaviour = "drop"
    says = "the verdict did not reach --notify: 127.0.0.1 cannot be reached, or broke off"
    assert Webhook.of(hook.url).post(NIGHT, 1) == says
    assert Webhook.of(f"http://127.0.0.1:{closed_port()}/SECRET").post(NIGHT, 1) == says


def test_a_name_that_does_not_exist_is_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    failure = Webhook.of("https://no-such-host.invalid/SECRET").post(NIGHT, 1)
    assert failure is not None
    assert failure.startswith("the verdict did not reach --notify: no-such-host.invalid ")
    assert "SECRET" not in failure


def test_user_and_password_of_the_url_are_sent_and_not_shown(hook: Hook) -> None:
    webhook = Webhook.of(hook.url.replace("://", "://me:pw-SECRET@"))
    assert "SECRET" not in repr(webhook)
    assert webhook.post(NIGHT, 1) is None
    login = base64.b64encode(b"me:pw-SECRET").decode()
    assert hook.posted[0][1]["authorization"] == f"Basic {login}"


def test_a_webhook_that_fails_changes_nothing_but_a_notice(
    tmp_path: Path, hook: Hook, run_night: Night, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code stays; the URL is neither printed nor recorded, and the record was written before."""
    hook.behaviour = 404
    written: list[int] = []
    hook.heard = lambda: written.append(len(list((tmp_path / "history" / "nights").iterdir())))
    code, _ = run_night(suite_of(tmp_path), {"small": complete(made(tmp_path, one_shard(3)))}, notify=hook.url)
    assert (code, written) == (0, [1])
    said = capsys.readouterr()
    assert "notice: the verdict did not reach --notify: 127.0.0.1 answered 404" in said.out
    texts = [said.out, said.err, *(file.read_text() for file in (tmp_path / "history").rglob("*") if file.is_file())]
    assert all("SECRET" not in text for text in texts)


def test_no_log_shows_the_url(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    """urllib3 writes each path to its log."""
    with caplog.at_level("DEBUG"):
        for behaviour in (200, 500, "drop"):
            hook.behaviour = behaviour
            Webhook.of(hook.url).post(NIGHT, 1)
    assert "SECRET" not in caplog.text
