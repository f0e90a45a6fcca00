"""A shard's stages overlap, so that the model does not wait; several runs share the pixels of a shard."""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import Plan, make_plan
from smoothcert.workers.certifier import Assignment, Certifier
from smoothcert.workers.runs.shard_task import Introduction, Refusal, ShardReport, ShardTask
from smoothcert.workers.runs.votes_table import METADATA_KEY
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars import card_decoder, pixels
from smoothcert.workers.tars.card_decoder import CardDecoder, decoder_of
from tests.helpers import jobs
from tests.helpers.faults import rows_of, undisturbed_rows
from tests.helpers.jpegs import as_file, photo
from tests.helpers.tars import tar_of, write_tar

SHARDS, BATCHES, STAGE_S = 4, 3, 0.3


@pytest.fixture
def certifier(tmp_path: Path) -> tuple[Certifier, tuple[ShardTask, ...]]:
    """A certifier of the small job, whose shards are three batches each; and its shards."""
    jobs.write_shards(tmp_path, SHARDS, images=2 * BATCHES)
    job = load_job(jobs.write_job(tmp_path, clean=False, execution={"images_per_batch": 2}), [])
    plan = make_plan(job)
    begin(plan)
    made = plan.certifier(threads=1)
    made.introduce(plan.run.run_id)  # torch's own start takes time, too
    return made, plan.tasks


def only_run_of(certifier: Certifier) -> Any:
    (prepared,) = certifier._runs.values()
    return prepared


def steps_of(certifier: Certifier, task: ShardTask, run_ids: list[str] | None = None) -> list[Any]:
    """The steps of a shard but for introductions."""
    return [step for step in certifier.certify(task, run_ids) if not isinstance(step, Introduction)]


def slowly(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float) -> None:
    """Let a function take longer, as if another machine did the work."""
    plain: Callable[..., Any] = getattr(owner, name)

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return plain(*args, **options)

    monkeypatch.setattr(owner, name, slow)


def seconds_of(certifier: Certifier, tasks: tuple[ShardTask, ...], lanes: int) -> float:
    """How long it takes to certify shards, `lanes` at a time."""
    start = time.monotonic()
    with ThreadPoolExecutor(lanes) as threads:
        for steps in threads.map(lambda task: steps_of(certifier, task), tasks):
            assert isinstance(steps[-1], ShardReport)
            assert steps[:-1] == [2, 4, 6]
    return time.monotonic() - start


def test_the_next_batch_is_decoded_while_one_is_computed(certifier, monkeypatch):
    """Decoding that takes as long as the votes costs one batch at the start, and the report shows no wait."""
    made, tasks = certifier
    rest_s = seconds_of(made, tasks[:1], lanes=1)
    slowly(monkeypatch, only_run_of(made).voter.model, "votes", STAGE_S)
    slowly(monkeypatch, pixels, "decode", STAGE_S / 2)  # of each of two images
    start = time.monotonic()
    *_, report = made.certify(tasks[1])
    assert time.monotonic() - start < rest_s + (BATCHES + BATCHES / 2 + 0.5) * STAGE_S
    assert isinstance(report, ShardReport)
    assert report.waited_s < BATCHES / 2 * STAGE_S
    assert report.turn_s >= BATCHES * STAGE_S


def test_a_shard_is_fetched_and_another_published_while_one_is_computed(certifier, monkeypatch):
    """Two shards at a time take the time of their votes, of one start and of one end."""
    made, tasks = certifier
    rest_s = SHARDS * seconds_of(made, tasks[:1], lanes=1)
    tasks = tuple(replace(task, index=task.index + SHARDS) for task in tasks)  # each to a new file
    votes_s, others_s = BATCHES * STAGE_S, STAGE_S * (BATCHES - 1) / 2
    slowly(monkeypatch, only_run_of(made).voter.model, "votes", STAGE_S)
    slowly(monkeypatch, only_run_of(made).publication.store, "publish", others_s)
    plain = made._store.local

    @contextmanager
    def fetched_slowly(url: str) -> Iterator[Path]:
        time.sleep(others_s)
        with plain(url) as tar:
            yield tar

    monkeypatch.setattr(made._store, "local", fetched_slowly)
    alone_s, overlapped_s = SHARDS * (votes_s + 2 * others_s), SHARDS * votes_s + 2 * others_s
    seconds = seconds_of(made, tasks, lanes=2)
    assert overlapped_s <= seconds < rest_s + (overlapped_s + alone_s) / 2


def test_two_shards_at_a_time_give_the_rows_of_one_at_a_time(certifier, tmp_path):
    """Threads that share the model mix up no rows."""
    made, tasks = certifier
    seconds_of(made, tasks, lanes=2)
    there = rows_of(tmp_path / "runs")
    assert there == undisturbed_rows(tmp_path / "job.yaml", tmp_path / "again")


def test_a_tar_with_fewer_images_than_its_index_lists_fails(certifier):
    """An image that is missing does not make a smaller run in silence."""
    made, (task, *_) = certifier
    *_, report = made.certify(task)
    assert isinstance(report, ShardReport)
    images = report.rows
    promised = replace(task, shard=replace(task.shard, images=images + 1))
    with pytest.raises(ShardError, match=f"it holds {images} images but its index file lists {images + 1}; fix the"):
        list(made.certify(promised))


@pytest.fixture
def two_plans(tmp_path: Path) -> tuple[Plan, Plan]:
    """Two begun runs over the same tars, one of them with a damaged image: two models, and ablations of two kinds."""
    (tmp_path / "tars").mkdir()
    members = [*jobs.samples(0, 3), ("a.png", b"no image"), ("a.cls", b"1"), *jobs.samples(3, 2)]
    write_tar(tmp_path / "tars", tar_of(members), "00.tar")
    write_tar(tmp_path / "tars", tar_of(jobs.samples(5, 4)), "01.tar")
    return plan_of(tmp_path, weights=1), plan_of(tmp_path, weights=2, ablation={"kind": "row", "size": 5, "stride": 3})


def plan_of(folder: Path, *overrides: str, weights: int, **changes: object) -> Plan:
    """A begun run of the small job with weights of its own."""
    torch.manual_seed(weights)
    state = torch.load(jobs.write_weights(folder / "weights.pt"))
    torch.save({name: value * (1 + weights / 10) for name, value in state.items()}, folder / f"weights{weights}.pt")
    job = jobs.write_job(folder, execution={"images_per_batch": 2}, **changes)
    plan = make_plan(load_job(job, [f"model.checkpoint={folder}/weights{weights}.pt", *overrides]))
    begin(plan)
    return plan


def assignment_of(plan: Plan, run_url: str | None = None) -> Assignment:
    return Assignment(plan.job, plan.run.run_id, run_url or plan.run.url, plan.checkpoint_sha256, plan.checkpoint_key)


def begun_again(plan: Plan, folder: Path) -> Path:
    """A folder in which the run is begun, without files of votes."""
    alone = folder / plan.run.run_id
    alone.mkdir(parents=True)
    (alone / "run.json").write_bytes((Path(plan.run.url) / "run.json").read_bytes())
    return alone


def content_of(file: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of all columns, and the metadata but for `seconds`."""
    data = file.read_bytes()
    footer_bytes = int.from_bytes(data[-8:-4], "little")
    metadata = json.loads(pq.read_schema(file).metadata[METADATA_KEY])
    return data[: -8 - footer_bytes], {name: value for name, value in metadata.items() if name != "seconds"}


def test_two_runs_get_the_files_that_each_would_get_alone(two_plans, tmp_path):
    """Two models vote on the same pixels; each run's files are the same as from a certifier of its own."""
    together = Certifier([assignment_of(plan) for plan in two_plans], threads=1)
    for task in two_plans[0].tasks:
        *counts, first, second = steps_of(together, task)
        assert counts == [*range(2, first.rows, 2), first.rows]
        assert (first.rows, first.published) == (second.rows, second.published) == (counts[-1], True)
    for plan in two_plans:
        alone = begun_again(plan, tmp_path / "alone")
        certifier = Certifier([assignment_of(plan, str(alone))], threads=1)
        for task in plan.tasks:
            list(certifier.certify(task))
            assert content_of(alone / task.file_name) == content_of(Path(plan.run.url) / task.file_name)
    schemas = [pq.read_schema(Path(plan.run.url) / plan.tasks[0].file_name) for plan in two_plans]
    assert [schema.field("votes").type.list_size for schema in schemas] == [16, 6]


def test_two_runs_fetch_and_decode_a_shard_once(two_plans, monkeypatch):
    """Pixels cost the same for two models as for one."""
    together = Certifier([assignment_of(plan) for plan in two_plans], threads=1)
    fetched, decoded = [], []
    local, decode = AnyStore.local, pixels.decode
    monkeypatch.setattr(AnyStore, "local", lambda store, url: fetched.append(url) or local(store, url))
    monkeypatch.setattr(pixels, "decode", lambda data, preprocess: decoded.append(data) or decode(data, preprocess))
    tasks = two_plans[0].tasks
    rows = [list(together.certify(task))[-1].rows for task in tasks]
    assert [url for url in fetched if url.endswith(".tar")] == [task.shard.url for task in tasks]
    assert (len(decoded), sum(rows)) == (10, 10)


def test_a_file_that_another_writer_published_stays(two_plans):
    """Of two runs one can be there already: its report says so, and the other is published."""
    plan, (task, *_) = two_plans[0], two_plans[0].tasks
    list(plan.certifier(threads=1).certify(task))
    there = (Path(plan.run.url) / task.file_name).read_bytes()
    together = Certifier([assignment_of(plan) for plan in two_plans], threads=1)
    *_, first, second = together.certify(task)
    assert (first.published, second.published) == (False, True)
    assert (Path(plan.run.url) / task.file_name).read_bytes() == there


def test_each_run_is_tried_out_and_introduced_with_its_own_model(two_plans):
    """The canary and the comparison of actors are about one run."""
    together = Certifier([assignment_of(plan) for plan in two_plans], threads=1)
    task = two_plans[0].tasks[0]
    logits = list[Any]()
    for plan in two_plans:
        alone = plan.certifier(threads=1)
        assert together.try_out(task, 5, plan.run.run_id) == alone.try_out(task, 5, plan.run.run_id)
        logits.append(together.introduce(plan.run.run_id).logits)
        assert (logits[-1] == alone.introduce(plan.run.run_id).logits).all()
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize("override", ["preprocess.resize=20", "preprocess.orient=true", "images.first_label=1"])
def test_runs_that_see_other_pixels_share_the_fetch_alone(tmp_path, monkeypatch, override):
    """They are decoded apart, and each gets the file that it would get alone."""
    jobs.write_shards(tmp_path, 1)
    plans = plan_of(tmp_path, weights=1), plan_of(tmp_path, override, weights=2)
    together = Certifier([assignment_of(plan) for plan in plans], threads=1)
    fetched, decoded = [], []
    local, decode = AnyStore.local, pixels.decode
    monkeypatch.setattr(AnyStore, "local", lambda store, url: fetched.append(url) or local(store, url))
    monkeypatch.setattr(pixels, "decode", lambda data, preprocess: decoded.append(data) or decode(data, preprocess))
    task = plans[0].tasks[0]
    *counts, first, second = steps_of(together, task)
    assert counts == [1, 2, 2, 3, 4, 5]
    assert (fetched.count(task.shard.url), len(decoded), first.rows, second.rows) == (1, 10, 5, 5)
    for plan in plans:
        alone = begun_again(plan, tmp_path / "alone")
        list(Certifier([assignment_of(plan, str(alone))], threads=1).certify(task))
        assert content_of(alone / task.file_name) == content_of(Path(plan.run.url) / task.file_name)


def write_photos(folder: Path) -> None:
    """A tar of six JPEGs, the last of which is cut off, and a PNG."""
    photos = [as_file(photo(24, 20, seed)) for seed in range(6)]
    members = [(f"{number}.jpg", data) for number, data in enumerate([*photos[:5], photos[5][:-30]])]
    (folder / "tars").mkdir()
    write_tar(folder / "tars", tar_of([*members, ("6.png", as_file(photo(24, 20, 6), "PNG"))]), "00.tar")


PHOTOS = ("images.label=null", "preprocess.resize=18")


def test_runs_of_two_decoders_are_decoded_apart_and_say_by_what(tmp_path, monkeypatch):
    """A stand-in for the GPU gives Pillow's pixels, so the votes are equal, too."""
    write_photos(tmp_path)
    card = CardDecoder(torch.device("cpu"))
    monkeypatch.setattr(card_decoder, "_card", lambda: card)
    plans = [plan_of(tmp_path, *PHOTOS, f"preprocess.decoder={name}", weights=1) for name in ("pillow", "nvjpeg")]
    assert plans[0].run.run_id != plans[1].run.run_id
    task = plans[0].tasks[0]
    *_, first, second = steps_of(Certifier([assignment_of(plan) for plan in plans], threads=2), task)
    assert first.statuses == second.statuses == {"ok": 6, "decode_error": 1}
    tables = [pq.read_table(Path(plan.run.url) / task.file_name) for plan in plans]
    assert tables[0].to_pylist() == tables[1].to_pylist()
    decoders = [json.loads(table.schema.metadata[METADATA_KEY])["decoder"] for table in tables]
    assert decoders == [decoder_of(plan.job.preprocess) for plan in plans]
    assert decoders[0] != decoders[1]


def test_a_decoder_that_fails_leaves_the_files_of_other_runs(tmp_path, monkeypatch):
    """Its error is raised when they are published."""
    write_photos(tmp_path)

    def lost(*_):
        raise RuntimeError("CUDA error: lost")

    card = CardDecoder(torch.device("cpu"))
    monkeypatch.setattr(card, "_decode", lost)
    monkeypatch.setattr(card_decoder, "_card", lambda: card)
    plans = [plan_of(tmp_path, *PHOTOS, f"preprocess.decoder={name}", weights=1) for name in ("nvjpeg", "pillow")]
    steps, reports = Certifier([assignment_of(plan) for plan in plans], threads=1).certify(plans[0].tasks[0]), []
    with pytest.raises(RuntimeError, match="CUDA error: lost"):
        reports.extend(steps)
    assert [report.run_id for report in reports if isinstance(report, ShardReport)] == [plans[1].run.run_id]


def test_a_machine_without_the_decoder_is_refused_before_any_vote(tmp_path, monkeypatch):
    """In one line, for its run alone; the plan needed no GPU."""
    write_photos(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    card_decoder._card.cache_clear()
    plans = [plan_of(tmp_path, *PHOTOS, f"preprocess.decoder={name}", weights=1) for name in ("nvjpeg", "pillow")]
    together = Certifier([assignment_of(plan) for plan in plans], threads=1)
    task = plans[0].tasks[0]
    refusal, *_, report = steps_of(together, task)
    assert isinstance(refusal, Refusal)
    assert (refusal.run_id, report.run_id) == (plans[0].run.run_id, plans[1].run.run_id)
    assert re.fullmatch(r"preprocess\.decoder: nvjpeg needs a GPU, and this process on .*", refusal.reason)
    with pytest.raises(RequestError, match=r"^preprocess\.decoder: nvjpeg needs a GPU"):
        together.try_out(task, 1, plans[0].run.run_id)
    assert not (Path(plans[0].run.url) / "votes").exists()


def test_a_run_that_fails_leaves_the_files_of_the_others_as_they_would_be(two_plans, monkeypatch, tmp_path):
    """Its error is raised when they are published; a shard is then done for them alone."""
    together = Certifier([assignment_of(plan) for plan in two_plans], threads=1)
    bad, good = two_plans
    task = bad.tasks[0]
    together.introduce(bad.run.run_id)
    together.voter(bad.run.run_id).__dict__["vote"] = lambda pixels: 1 / 0
    steps = together.certify(task)
    reports = []
    with pytest.raises(ZeroDivisionError):
        reports += (step for step in steps if isinstance(step, ShardReport))
    assert (Path(good.run.url) / task.file_name).exists()
    assert not (Path(bad.run.url) / task.file_name).exists()
    alone = begun_again(good, tmp_path / "alone")
    list(Certifier([assignment_of(good, str(alone))], threads=1).certify(task))
    assert content_of(alone / task.file_name) == content_of(Path(good.run.url) / task.file_name)


def test_a_run_whose_request_is_wrong_is_refused_and_the_others_go_on(two_plans):
    """A checkpoint that changed since the plan; a run that whoever hears its introduction objects to."""
    changed, other = two_plans
    Path(changed.job.model.checkpoint).write_bytes(b"other")
    together = Certifier([assignment_of(plan) for plan in two_plans], threads=1)
    refusal, *_, report = steps_of(together, other.tasks[0])
    assert isinstance(refusal, Refusal)
    assert (refusal.run_id, report.run_id) == (changed.run.run_id, other.run.run_id)
    assert re.fullmatch(r".*weights1.pt changed since the run was planned; start again", refusal.reason)
    objected = Certifier([assignment_of(other)], threads=1)
    steps = objected.certify(other.tasks[1])
    assert isinstance(next(steps), Introduction)
    objected.refuse(other.run.run_id)
    assert list(steps) == []
    assert not (Path(other.run.url) / other.tasks[1].file_name).exists()


def test_only_the_runs_that_lack_a_shard_get_it(two_plans):
    """And the model of the other is not even loaded."""
    together = Certifier([assignment_of(plan) for plan in two_plans], threads=1)
    first, second = (plan.run.run_id for plan in two_plans)
    *_, report = steps_of(together, two_plans[0].tasks[0], [second])
    assert report.run_id == second
    assert list(together._runs) == [second]
    assert first not in together._runs
