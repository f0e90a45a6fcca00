"""Tables of changes to a run, each with the line that `smoothcert verify` must say of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[Path], Any]


class Damages(list[tuple[Change, str, int]]):
    """Changes of a run's folder, the pattern of a line that names each, and the number of lines."""

    def add(self, expected: str, problems: int = 1) -> Callable[[Change], Change]:
        """Add the change that is decorated."""

        def append(change: Change) -> Change:
            self.append((change, expected, problems))
            return change

        return append
