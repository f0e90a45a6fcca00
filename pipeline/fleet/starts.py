"""When to start the next actors, if some could not start.

A machine may join that lacks a library or memory, so that no actor can start there. Starting actors without a pause
would keep it busy for nothing. So each wait is longer than the one before, and each reason is reported once.

Pure: the time is an argument. Not covered: actors that are lost after they ran (attempts.py).
"""

from smoothcert.pipeline.fleet.events import CannotStart

FIRST_DELAY_S = 5.0  # doubles each time
LONGEST_DELAY_S = 60.0


class Starts:
    """What became of the actors that were started."""

    def __init__(self) -> None:
        self._delay_s = FIRST_DELAY_S
        self._again_at = 0.0
        self._most_until_then = 0  # actors
        self._reported: set[str] = set()

    def succeeded(self) -> None:
        """An actor runs: the next failure is a new one, with the first delay."""
        self._delay_s = FIRST_DELAY_S

    def failed(self, reason: str, *, running: int, now: float) -> list[CannotStart]:
        """An actor ended before it ran.

        Args:
            reason: one line.
            running: number of actors that run. During the wait, lost ones may be replaced up to this number.
            now: seconds.
        """
        if now >= self._again_at:  # of several that fail together, the first counts
            self._again_at = now + self._delay_s
            self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        self._most_until_then = running
        if reason in self._reported:
            return []
        self._reported.add(reason)
        return [CannotStart(reason)]

    def most(self, wanted: int, now: float) -> int:
        """How many of the wanted actors may run or start now."""
        return min(wanted, self._most_until_then) if now < self._again_at else wanted
