"""How fast something goes, how long the rest takes, and how a check shows it."""

import io

import pytest
from rich.console import Console

from smoothcert.pipeline.console import bars
from smoothcert.pipeline.console.bars import counting
from tests.helpers.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(bars, "time", made)
    return made


def test_an_estimate_follows_machines_that_join(clock: Clock) -> None:
    """The rate is that of the last minutes: after an hour with one machine, ten machines show at once."""
    pace, done = bars.Pace(), 0
    for step in range(720):
        clock.now += 10
        done += 1 if step < 360 else 10
        rate = pace.rate(done)
    assert rate == pytest.approx(1.0, rel=0.05)


def test_a_slow_pace_has_an_estimate(clock: Clock) -> None:
    """Also if a batch takes many minutes."""
    pace = bars.Pace()
    for step in range(1, 5):
        clock.now += 1000
        assert pace.rate(2 * step) == pytest.approx(0.002)


def test_a_check_prints_a_line_every_half_minute(clock: Clock) -> None:
    """Where there is no terminal."""
    file = io.StringIO()
    with counting(Console(file=file, width=80)) as hear:
        for done in range(100):
            clock.now += 1
            hear("images replayed", done, 1000)
    assert file.getvalue().splitlines() == [f"{done} of 1,000 images replayed" for done in (29, 59, 89)]


def test_a_check_shows_a_bar_and_removes_it() -> None:
    """On a terminal; a new kind of work starts with a rate of its own."""
    file = io.StringIO()
    with counting(Console(file=file, force_terminal=True, width=80)) as hear:
        hear("files", 3, 4)
        hear("images replayed", 0, 30)
        hear("images replayed", 10, 30)
    assert "10/30 images replayed" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")
