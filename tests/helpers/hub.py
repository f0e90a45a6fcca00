"""A small Hugging Face Hub on this machine."""

import hashlib
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.helpers.house import HOUSE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves files by path, as the Hub does: a HEAD tells the commit and the ETag, a GET gives the bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        self.gated: set[str] = set()  # repositories whose files need conditions to be accepted

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        repository, _, file = self.path.partition("/resolve/")
        data = self.server.files.get(self.path)  # type: ignore[attr-defined]
        if repository.strip("/") in self.server.gated:  # type: ignore[attr-defined]
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if data is not None else 404)
        if data is None:
            known = any(path.startswith(repository + "/") for path in self.server.files)  # type: ignore[attr-defined]
            self.send_header("X-Error-Code", "EntryNotFound" if known and file else "RepoNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_args: object) -> None:
        pass


def run_with(hub: Hub, home: Path, script: str, *arguments: object, **environment: str) -> str:
    """The output of a script in a process of its own, which reads the environment anew.

    Args:
        hub: where it looks for names of the hub.
        home: the folder of its cache.
        script: Python.
        arguments: of the script.
        environment: further variables.
    """
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=HOUSE,
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout
