"""A night: exit codes, baselines, the record, what is printed; and that neither history nor webhook hides a verdict."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.certify.outcome import Outcome
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.nightly import history as history_module
from smoothcert.pipeline.nightly import night
from smoothcert.pipeline.nightly.history import History
from smoothcert.pipeline.nightly.notify import Webhook
from smoothcert.workers.networks import described_jobs
from smoothcert.workers.runs.records import FiguresRecord
from smoothcert.workers.runs.run import open_run
from tests.helpers.nights import (
    a_night,
    baseline_of,
    complete,
    gates_of,
    history_of,
    made,
    one_shard,
    suite_of,
    unfinished,
)
from tests.pipeline.nightly.conftest import Night

GATES = gates_of({"metric": "certified", "patch": 2, "max_lost": 1})


def test_five_nights(tmp_path: Path, run_night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    """First, unchanged, better, worse, unfinished: codes, sentences, and a baseline that only a person moves."""
    suite = suite_of(tmp_path, gates={"small": GATES})
    base, better, worse = (
        made(tmp_path, one_shard(sure, 10 - sure), weights=weights) for sure, weights in ((8, "0"), (9, "1"), (5, "2"))
    )
    nights = [
        (complete(base), 0, "gates hold: 80.00 % certified against 1 x 1, the first complete run, which becomes the "
         "baseline; 1 shard computed"),
        (complete(base, computed=0), 0, f"gates hold: 80.00 % certified against 1 x 1, the run is the baseline "
         f"{base.run_id} itself; nothing to compute"),
        (complete(better, adopted=19), 0, "gates hold: 90.00 % certified against 1 x 1, 0 images lost and 1 gained "
         f"since the baseline {base.run_id}; 1 shard computed, 19 taken over"),
        (complete(worse, computed=0, adopted=20), 1, "GATE TRIPPED: certified against 2 x 2 (exact rule): 3 lost, at "
         "most 1 may be; images: a.tar/5, a.tar/6, a.tar/7; 50.00 % certified against 1 x 1, 3 images lost and 0 "
         f"gained since the baseline {base.run_id}; 20 shards taken over"),
        (unfinished(worse, "01.tar: the tar is cut off"), 3, "UNFINISHED: 01.tar: the tar is cut off; run the same "
         "command again; 1 shard computed"),
    ]  # fmt: skip
    for outcome, code, sentence in nights:
        given, record = run_night(suite, {"small": outcome})
        printed = capsys.readouterr().out.splitlines()
        assert printed == [f"small: {sentence}", str(tmp_path / "history" / "index.html")]
        assert (given, record.exit_code) == (code, code)
        assert record.entries[0].sentence == printed[0]
        assert baseline_of(suite) == base.run_id
    assert len(history_of(suite).nights().records) == 5


def test_a_baseline_moves_to_each_night_whose_gates_held_if_the_suite_says_so(tmp_path: Path, run_night: Night) -> None:
    suite = suite_of(tmp_path, gates={"small": GATES}, baseline="previous")
    one, two, worse = (
        made(tmp_path, one_shard(sure, 10 - sure), weights=weights) for sure, weights in ((8, "0"), (7, "1"), (4, "2"))
    )
    run_night(suite, {"small": complete(one)})
    _, record = run_night(suite, {"small": complete(two)})
    assert "this run becomes the baseline" in record.entries[0].sentence
    assert baseline_of(suite) == two.run_id
    code, record = run_night(suite, {"small": complete(worse)})
    assert (code, baseline_of(suite)) == (1, two.run_id)
    assert "the baseline stays" in record.entries[0].sentence
    run_night(suite, {"small": complete(two)})
    assert len(list((tmp_path / "history" / "accepted").iterdir())) == 2


@pytest.mark.parametrize("problems", [("2 of 10 images have no votes",), ()])
def test_a_first_run_that_is_not_good_is_no_baseline(tmp_path: Path, run_night: Night, problems: tuple[str]) -> None:
    """Its figures cannot be trusted, or a gate that needs no other run trips."""
    suite = suite_of(tmp_path, gates={} if problems else {"small": gates_of({"metric": "smoothed", "min": 1.0})})
    wrong = {"a.tar": [one | {"label": 3 * (number == 0)} for number, one in enumerate(one_shard(10)["a.tar"])]}
    code, record = run_night(suite, {"small": complete(made(tmp_path, wrong), *problems)})
    assert (code, record.entries[0].verdict) == (1, "not trusted" if problems else "gate tripped")
    assert baseline_of(suite) is None
    assert "no baseline yet" in record.entries[0].sentence
    assert all(problem in record.entries[0].sentence for problem in problems)


def test_a_trial_moves_no_baseline(tmp_path: Path, run_night: Night) -> None:
    """One with --limit would make a few images the measure of all nights."""
    suite = suite_of(tmp_path)
    code, record = run_night(suite, {"small": complete(made(tmp_path, one_shard(4)))}, moves_baselines=False)
    assert (code, baseline_of(suite), record.entries[0].becomes) == (0, None, None)


def test_an_entry_without_gates_never_trips(tmp_path: Path, run_night: Night) -> None:
    suite = suite_of(tmp_path)
    run_night(suite, {"small": complete(made(tmp_path, one_shard(9)))})
    code, record = run_night(suite, {"small": complete(made(tmp_path, one_shard(0, 9), weights="1"))})
    assert (code, record.entries[0].verdict, record.entries[0].gates) == (0, "no gates", ())
    assert "no gates: 0.00 % certified against 1 x 1, 9 images lost" in record.entries[0].sentence


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ("complete complete", 0),
        ("complete unfinished", 3),
        ("refused unfinished", 2),
        ("untrusted refused", 1),
        ("unfinished untrusted", 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_entry(tmp_path: Path, run_night: Night, states: str, code: int) -> None:
    """1 before 2 before 3."""
    run = made(tmp_path, one_shard(3))
    kinds = {
        "complete": complete(run),
        "untrusted": complete(run, "images.label: labels seem to count from 1"),
        "unfinished": unfinished(run, "a shard failed"),
        "refused": Outcome("refused", ("model.checkpoint: does not fit",)),
    }
    names = states.split()
    entries = [f"entry{place}" for place in range(len(names))]
    outcomes = {entry: kinds[name] for entry, name in zip(entries, names, strict=True)}
    assert run_night(suite_of(tmp_path, entries), outcomes)[0] == code


@pytest.mark.parametrize(
    ("error", "code", "verdict"),
    [(RunError("no machine has a GPU"), 3, "unfinished"), (RequestError("images.shards: none"), 2, "refused")],
)
def test_an_error_of_the_whole_pass_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, verdict: str
) -> None:
    """Each entry says it."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(night, "certify_entries", fail)
    suite = suite_of(tmp_path, ("a", "b"))
    assert night.nightly(suite) == code
    (record,) = history_of(suite).nights().records
    assert [one.verdict for one in record.entries] == [verdict] * 2
    assert all(str(error) in one.sentence for one in record.entries)


def test_an_interrupt_and_a_kill_leave_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(night, "certify_entries", interrupt)
    with pytest.raises(KeyboardInterrupt):
        night.nightly(suite_of(tmp_path))
    assert not (tmp_path / "history").exists()


def test_json_has_the_record_and_nothing_else_is_on_stdout(
    tmp_path: Path, run_night: Night, capsys: pytest.CaptureFixture[str]
) -> None:
    file = io.StringIO()
    code, record = run_night(suite_of(tmp_path), {"small": complete(made(tmp_path, one_shard(3)))}, json_to=file)
    value = json.loads(file.getvalue())
    assert value == json.loads(record.encode()) | {
        "exit_code": code,
        "verdict": "complete; there are no gates",
        "page": str(tmp_path / "history" / "index.html"),
        "errors": [],
        "notices": [],
    }
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("small: no gates: 100.00 %")


def _full(*_: object, **__: object) -> Any:
    raise RequestError("output: cannot write: read-only file system")


@pytest.mark.parametrize(("sure", "code"), [(8, 2), (2, 1)])
def test_a_history_that_cannot_be_written_hides_no_verdict(
    tmp_path: Path, run_night: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    sure: int, code: int,
) -> None:  # fmt: skip
    """A gate that tripped stays 1; the sentence is printed."""
    suite = suite_of(tmp_path, gates={"small": GATES})
    run_night(suite, {"small": complete(made(tmp_path, one_shard(8, 2)))})
    monkeypatch.setattr(History, "publish_night", _full)
    new = made(tmp_path, one_shard(sure, 10 - sure), weights="1")
    assert run_night(suite, {"small": complete(new)})[0] == code
    said = capsys.readouterr().out
    assert "error: the history of this night is not whole: output: cannot write: read-only file system" in said
    assert ("GATE TRIPPED" in said) == (code == 1)


def test_pages_that_cannot_be_written_are_notices(
    tmp_path: Path, run_night: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(History, "publish_pages", _full)
    monkeypatch.setattr(History, "write_page", _full)
    suite = suite_of(tmp_path)
    code, record = run_night(suite, {"small": complete(made(tmp_path, one_shard(3)))})
    assert (code, record.entries[0].report) == (0, None)
    said = capsys.readouterr().out
    assert "notice: small: not all pages are written: output: cannot write" in said
    assert "index.html is not written: output: cannot write" in said


def test_a_damaged_record_is_a_notice_and_stops_no_night(
    tmp_path: Path, run_night: Night, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, run = suite_of(tmp_path), made(tmp_path, one_shard(3))
    run_night(suite, {"small": complete(run)})
    broken = next((tmp_path / "history" / "nights").iterdir())
    broken.write_text("[]")
    code, _ = run_night(suite, {"small": complete(run)})
    assert code == 0
    assert f"notice: {broken} is damaged" in capsys.readouterr().out
    assert len(history_of(suite).nights().records) == 1


def test_a_night_that_was_killed_before_its_baseline_moved_repeats_its_comparison(
    tmp_path: Path, run_night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is there, the baseline is the old one: the same command makes both right."""
    suite = suite_of(tmp_path, baseline="previous")
    one, two = made(tmp_path, one_shard(3)), made(tmp_path, one_shard(2, 1), weights="1")
    run_night(suite, {"small": complete(one)})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(history_module.History, "accept", killed)
        run_night(suite, {"small": complete(two)})
    assert baseline_of(suite) == one.run_id
    _, record = run_night(suite, {"small": complete(two)})
    assert record.entries[0].changes[0].lost == 1
    assert baseline_of(suite) == two.run_id


def test_secrets_of_urls_are_neither_recorded_nor_printed(
    tmp_path: Path, run_night: Night, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reason may name a signed URL."""
    suite = suite_of(tmp_path)
    problem = "https://me:pw-SECRET@host/00.tar?sig=SECRET broke off"
    run_night(suite, {"small": unfinished(made(tmp_path, one_shard(3)), problem)})
    texts = [capsys.readouterr().out, *(file.read_text() for file in (tmp_path / "history").rglob("*.*ml"))]
    texts += [file.read_text() for file in (tmp_path / "history").rglob("*.json")]
    assert len(texts) == 3
    assert all("SECRET" not in text and "https://host/00.tar?... broke off" in text for text in texts)


def test_a_wrong_reason_or_webhook_is_refused_before_the_work(tmp_path: Path, run_night: Night) -> None:
    with pytest.raises(RequestError, match="allow: 'pictures' is no reason; choose from unfinished, images"):
        run_night(suite_of(tmp_path, allow=("pictures",)), {})
    with pytest.raises(RequestError, match="--notify: is no URL of a web server") as error:
        run_night(suite_of(tmp_path), {}, notify="ftp://SECRET")
    assert "SECRET" not in str(error.value)


def test_a_real_run_has_its_pages(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What certify made: images without votes, wrong labels, pictures of its tars."""
    run = open_run(str(finished))
    suite = Suite("real", {"small": run.job.model_copy(update={"output": str(tmp_path)})})
    success = run.success()
    assert success is not None
    code, record = a_night(monkeypatch, suite, {"small": Outcome("complete", (), run, success)})
    assert code == 0
    figures = record.entries[0].figures
    assert type(figures) is FiguresRecord
    assert figures.images == success.images
    assert (tmp_path / "history" / str(record.entries[0].report)).exists()


@pytest.mark.parametrize(
    ("arguments", "overrides", "becomes"),
    [([], [], "first"), (["--limit", "3", "--set", "a=1"], ["a=1", "images.limit=3"], None)],
)
def test_the_command_runs_a_night(
    tmp_path: Path, no_curves: None, monkeypatch: pytest.MonkeyPatch, arguments: list[str], overrides: list[str],
    becomes: str | None,
) -> None:  # fmt: skip
    """Options reach certify; with --limit it is a trial; a webhook of the environment is used."""
    suite, given, posted = suite_of(tmp_path), list[object](), list[int]()

    def load(path: Path, overrides: list[str]) -> Suite:
        given.extend([path, overrides])
        return suite

    def certify(one: Suite, options: night.Options, *, quiet: bool) -> dict[str, Outcome]:
        given.extend([one, options, quiet])
        return {"small": complete(made(tmp_path, one_shard(3)))}

    monkeypatch.setattr(described_jobs, "load_suite", load, raising=False)
    monkeypatch.setattr(night, "certify_entries", certify)
    monkeypatch.setattr(Webhook, "post", lambda hook, record, code: posted.append(code))
    monkeypatch.setenv("SMOOTHCERT_NOTIFY", "https://host/SECRET")
    command = ["nightly", "suite.yaml", *arguments, "--allow-code", "--adopt-across"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert given == [Path("suite.yaml"), overrides, suite, night.Options(allow_code=True, adopt_across=True), False]
    assert posted == [0]
    assert history_of(suite).nights().records[0].entries[0].becomes == becomes
    assert "SECRET" not in said.output
