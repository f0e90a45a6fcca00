"""Starts that fail are tried less and less often, and named once."""

from smoothcert.pipeline.fleet.events import CannotStart
from smoothcert.pipeline.fleet.starts import FIRST_DELAY_S, LONGEST_DELAY_S, Starts


def wait_of(starts: Starts, now: float) -> int:
    """Seconds until a second actor may start."""
    return next(seconds for seconds in range(1000) if starts.most(2, now + seconds) == 2)


def test_each_wait_is_twice_the_last_up_to_a_minute() -> None:
    """An actor that starts sets it back."""
    starts, now, waits = Starts(), 100.0, []
    for _ in range(7):
        assert starts.most(2, now) == 2
        starts.failed("no torch", running=1, now=now)
        waits.append(wait_of(starts, now))
        now += waits[-1]
    assert waits == [5, 10, 20, 40, 60, 60, 60]
    assert (waits[0], waits[-1]) == (FIRST_DELAY_S, LONGEST_DELAY_S)
    starts.succeeded()
    starts.failed("no torch", running=1, now=now)
    assert wait_of(starts, now) == FIRST_DELAY_S


def test_actors_that_fail_together_count_as_one() -> None:
    """A machine with eight GPUs is tried again as soon as one with one GPU."""
    starts = Starts()
    for _ in range(8):
        starts.failed("no torch", running=1, now=0)
    assert wait_of(starts, 0) == FIRST_DELAY_S


def test_each_reason_is_said_once() -> None:
    """Another reason is news."""
    starts = Starts()
    said = [starts.failed(reason, running=1, now=now) for now, reason in enumerate(["no torch", "no torch", "no disk"])]
    assert said == [[CannotStart("no torch")], [], [CannotStart("no disk")]]


def test_as_many_as_ran_may_run_during_the_wait() -> None:
    """So a lost actor is replaced at once."""
    starts = Starts()
    starts.failed("no torch", running=3, now=0)
    assert [starts.most(wanted, now=1) for wanted in (2, 3, 8)] == [2, 3, 3]
    assert starts.most(8, now=FIRST_DELAY_S) == 8
