"""Records are published once; of writers at once the page shows all; a baseline moves by records alone."""

import json
import multiprocessing
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.nightly import history as module
from smoothcert.pipeline.nightly import plots
from smoothcert.pipeline.nightly.history import History, baseline_runs, entries_of, name_at
from smoothcert.pipeline.nightly.records import EntryRecord, NightRecord
from tests.helpers.nights import recorded

pytestmark = pytest.mark.usefixtures("no_curves")


def an_entry(name: str = "a", run_id: str = "1" * 16) -> EntryRecord:
    return EntryRecord(entry=name, job="j", run_id=run_id, state="complete", verdict="no gates", sentence=f"{name}: s")


@pytest.fixture(params=["folder", "s3"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> History:
    """An empty one: on this machine, and in S3."""
    if request.param == "s3":
        return History(f"s3://{request.getfixturevalue('bucket')}/runs", Storage())
    return History(str(tmp_path), Storage())


def page_of(history: History) -> str:
    return history.store.read(f"{history.url}/index.html").decode()


def test_an_output_without_nights_has_an_empty_history(tmp_path: Path) -> None:
    history = History(str(tmp_path), Storage())
    assert history.nights() == ([], [])
    assert history.baseline("night", "a") is None
    assert baseline_runs(str(tmp_path), Storage()) == {}


def test_nights_come_in_the_order_of_time(history: History) -> None:
    nights = [recorded(day, an_entry()) for day in (3, 1, 2)]
    for one in nights:
        history.publish_night(one)
    assert history.nights() == (sorted(nights, key=lambda one: one.night), [])
    assert entries_of(nights) == {("night", "a"): "1" * 16}


def test_a_record_is_never_replaced(history: History) -> None:
    """Of two nights of one name, which cannot be, the first stays."""
    first = recorded(1, an_entry())
    history.publish_night(first)
    history.publish_night(first.model_copy(update={"exit_code": 1}))
    assert history.nights().records == [first]


def test_the_last_acceptance_of_an_entry_is_its_baseline(history: History) -> None:
    """Entries of other suites and names are others."""
    history.accept("night", "a", "1" * 16, "first")
    history.accept("night", "b", "2" * 16, "first")
    history.accept("day", "a", "3" * 16, "first")
    history.accept("night", "a", "4" * 16, "accept")
    history.accept("night", "c", "4" * 16, "first")
    baseline = history.baseline("night", "a")
    assert baseline is not None
    assert (baseline.run_id, baseline.by) == ("4" * 16, "accept")
    assert baseline_runs(history.output, Storage()) == {
        "4" * 16: "a of night, c of night",
        "2" * 16: "b of night",
        "3" * 16: "a of day",
    }


def test_an_acceptance_is_the_last_even_if_another_clock_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(days=1)

    history = History(str(tmp_path), Storage())
    with monkeypatch.context() as patched:
        patched.setattr(module, "datetime", Ahead)
        history.accept("night", "a", "1" * 16, "first")
    for run_id in ("2" * 16, "3" * 16):
        history.accept("night", "a", run_id, "accept")
        assert history.baseline("night", "a").run_id == run_id  # type: ignore[union-attr]


def test_names_sort_by_time_and_are_never_the_same() -> None:
    moment = datetime(2026, 11, 27, 23, tzinfo=UTC)
    names = [name_at(moment + timedelta(microseconds=step // 2)) for step in range(20)]
    assert [name[:23] for name in sorted(names)] == [name[:23] for name in names]
    assert len({*names}) == 20
    elsewhere = moment.astimezone(datetime.strptime("+0900", "%z").tzinfo)
    assert name_at(elsewhere)[:23] == name_at(moment)[:23]


def test_a_damaged_night_is_a_line_and_stays_out_of_the_page(history: History) -> None:
    """The page says so."""
    history.publish_night(recorded(1, an_entry()))
    history.store.publish(history.url, "nights/20261102T000000000000Z-0.json", b'{"night": ')
    nights, damaged = history.nights()
    assert len(nights) == 1
    assert len(damaged) == 1
    assert damaged[0].startswith(f"{history.url}/nights/20261102T000000000000Z-0.json is damaged (")
    history.write_page()
    assert "left out: " in page_of(history)
    assert "20261102T000000000000Z-0.json is damaged" in page_of(history)


def test_a_damaged_acceptance_is_no_older_baseline(tmp_path: Path) -> None:
    """Nothing falls back to an older baseline; accepting a run again is the remedy. Other entries are not touched."""
    history = History(str(tmp_path), Storage())
    for run_id in ("1" * 16, "2" * 16):
        history.accept("night", "a", run_id, "accept")
    history.accept("night", "b", "5" * 16, "first")
    last = max(path for path in (tmp_path / "history" / "accepted").iterdir() if '"a"' in path.read_text())
    last.write_bytes(last.read_bytes()[:20])
    with pytest.raises(RequestError, match=r"is damaged .* `smoothcert accept RUN`"):
        history.baseline("night", "a")
    with pytest.raises(RequestError, match="is damaged"):
        baseline_runs(str(tmp_path), Storage())
    assert history.baseline("night", "b").run_id == "5" * 16  # type: ignore[union-attr]
    history.accept("night", "a", "3" * 16, "accept")
    assert history.baseline("night", "a").run_id == "3" * 16  # type: ignore[union-attr]
    assert set(baseline_runs(str(tmp_path), Storage())) == {"3" * 16, "5" * 16}


def test_an_acceptance_under_the_name_of_another_entry_is_damage(tmp_path: Path) -> None:
    history = History(str(tmp_path), Storage())
    history.accept("night", "a", "1" * 16, "first")
    (file,) = (tmp_path / "history" / "accepted").iterdir()
    content = json.loads(file.read_text()) | {"entry": "b"}
    file.write_text(json.dumps(content))
    with pytest.raises(RequestError, match="its name is not that of its entry"):
        history.baseline("night", "a")


def test_pages_are_found_below_the_history(history: History) -> None:
    """A path that is not UTF-8 does not stop them."""
    paths = history.publish_pages("NIGHT", "a", {"report.html": "caf\udce9"})
    assert paths == {"report.html": "reports/NIGHT/a/report.html"}
    assert history.store.read(f"{history.url}/{paths['report.html']}") == b"caf\\udce9"


def test_a_record_that_comes_while_the_page_is_written_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other night has written its page before; ours would leave it out."""
    ours, theirs = History(str(tmp_path), Storage()), History(str(tmp_path), Storage())
    ours.publish_night(recorded(1, an_entry("ours")))
    replace = ours.store.replace
    waiting = [recorded(2, an_entry("theirs"))]

    def late(url: str, data: bytes) -> None:
        if waiting:
            theirs.publish_night(waiting.pop())
            theirs.write_page()
        replace(url, data)

    monkeypatch.setattr(ours.store, "replace", late)
    ours.write_page()
    assert "theirs: s" in page_of(ours)


def _writer(output: str, number: int, each: int) -> None:
    plots.svg_of = lambda _axes, name: f'<svg id="{name}"></svg>'  # in this process; more writing, less drawing
    history = History(output, Storage())
    for step in range(each):
        entry = an_entry(f"entry{number}", f"{number:08x}{step:08x}")
        night = recorded(1, entry).model_copy(update={"night": name_at(datetime.now(UTC))})
        history.publish_night(night)
        history.accept("night", f"entry{number}", f"{number:08x}{step:08x}", "previous")
        history.write_page()


def _half_records(history: History, done: threading.Event) -> Iterator[str]:
    while not done.is_set():
        found = History(history.output, Storage())
        yield from found.nights().damaged
        yield from found.acceptances()[1]
        if found.store.find(f"{found.url}/index.html") is not None and not page_of(found).endswith("</html>"):
            yield "half a page"


def test_nights_at_once_lose_nothing_and_show_nothing_half(history: History) -> None:
    """Three processes write nights, acceptances and the page; a reader beside them never sees half a record or page,
    and at the end the page has the last of each."""
    processes, each = 3, 5
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_writer, args=(history.output, number, each)) for number in range(processes)]
    done, half = threading.Event(), list[str]()
    reader = threading.Thread(target=lambda: half.extend(_half_records(history, done)))
    reader.start()
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    done.set()
    reader.join()
    assert [one.exitcode for one in writers] == [0] * processes
    assert half == []
    nights = history.nights()
    assert (len(nights.records), nights.damaged) == (processes * each, [])
    page = page_of(history)
    for number in range(processes):
        assert history.baseline("night", f"entry{number}").run_id == f"{number:08x}{each - 1:08x}"  # type: ignore[union-attr]
        assert page.count(f"<td>{number:08x}") == each
        assert f"Baseline: run {number:08x}{each - 1:08x}" in page


def test_a_night_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be thousands, each a request in S3."""
    history = History(str(tmp_path), Storage())
    read: list[str] = []
    original = history.store.read
    monkeypatch.setattr(history.store, "read", lambda url: read.append(url) or original(url))
    for day in (1, 2):
        history.publish_night(recorded(day, an_entry()))
        assert all(isinstance(one, NightRecord) for one in history.nights().records)
    history.write_page()
    assert len(read) == 2
