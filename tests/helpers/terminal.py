"""What a command prints on a terminal of some width."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

from tests.helpers.house import HOUSE

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_terminal(*arguments: object, width: int, colours: bool = False, **environment: str) -> str:
    """Everything that `smoothcert ARGUMENTS` writes to a terminal; colours are taken out unless they are wanted."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", "from smoothcert.pipeline.cli import app; app()", *map(str, arguments)],
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=HOUSE,
        env=kept | {"TERM": "xterm-256color"} | environment,
    )
    os.close(end)
    text = _read(terminal).replace("\r\n", "\n")
    process.wait(timeout=60)
    return text if colours else _ESCAPES.sub("", text)


def _read(terminal: int) -> str:
    parts = []
    try:
        while part := os.read(terminal, 1 << 16):
            parts.append(part)
    except OSError:  # Linux says so where the other end is closed
        pass
    os.close(terminal)
    return b"".join(parts).decode()
