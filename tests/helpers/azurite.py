"""Azurite, a Blob Storage on this machine: `npm install -g azurite`."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# The account that every Azurite has.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """The connection string of a running server; skips the test if there is none."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no Azurite here: azurite-blob is not on the PATH")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--location", str(folder), "--blobPort", str(port), "--silent", "--skipApiVersionCheck"]
    server = subprocess.Popen([program, *options, "--disableTelemetry"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    finally:
        server.terminate()
        server.wait()
