"""What other drivers have published is listed now and then."""

import pytest

from smoothcert.pipeline.fleet import seen
from smoothcert.pipeline.fleet.seen import Seen
from tests.helpers.made_up_actors import task_of


class Listings:
    """A run whose listing takes a while.

    Attributes:
        names: what is published.
        number: of listings so far.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes_s: float) -> None:
        self.names: set[str] = set()
        self.number, self.now, self._takes_s = 0, 1000.0, takes_s
        monkeypatch.setattr(seen.time, "monotonic", lambda: self.now)

    def __call__(self) -> set[str]:
        self.number += 1
        self.now += self._takes_s
        return set(self.names)


@pytest.mark.parametrize(("takes_s", "used_s"), [(0.02, 5.0), (2.0, 60.0)])
def test_a_listing_is_used_for_a_while(monkeypatch: pytest.MonkeyPatch, takes_s: float, used_s: float) -> None:
    """For 5 s, or 30 times as long as it took; then what was published meanwhile is seen."""
    listings = Listings(monkeypatch, takes_s)
    published = Seen(listings)
    listings.names.add(task_of(0).file_name)
    assert published.has(task_of(0))
    assert not published.has(task_of(1))
    listings.names.add(task_of(1).file_name)
    listings.now += used_s - 0.1
    assert not published.has(task_of(1))
    assert listings.number == 1
    listings.now += 0.2
    assert published.has(task_of(1))
    assert listings.number == 2


def test_a_thousand_hand_outs_need_one_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a question for each."""
    listings = Listings(monkeypatch, 0.02)
    published = Seen(listings)
    assert not any(published.has(task_of(number)) for number in range(1000))
    assert listings.number == 1
