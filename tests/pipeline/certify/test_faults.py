"""No fault loses, doubles or changes a row: real drivers, real faults, compared with an undisturbed run.

The undisturbed run is made by one process without Ray. Each test appends what it saw to the file that
SMOOTHCERT_FAULTS names; scripts/fault_table.py makes docs/reliability.md of it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest

from tests.helpers import jobs, tars
from tests.helpers.faults import (
    CERTIFIER,
    DONE,
    FLEET,
    Comparison,
    Rows,
    before_shards,
    compare,
    once,
    output_of,
    record,
    rows_of,
    small_job_rows,
    undisturbed_rows,
)
from tests.helpers.faulty_s3 import Fault, FaultyS3

SHARDS, IMAGES = 12, 6
WHOLE = Comparison(SHARDS * IMAGES, SHARDS * IMAGES, 0, 0)
PAUSE = "time.sleep(0.4)"  # so that faults find actors at work
CPUS = os.cpu_count() or 1
_FIRST_IMAGE_OF = {shard: tars.png(jobs.CROP, jobs.CROP, seed=shard * IMAGES) for shard in (0, 3)}
_BEFORE_DECODING = """
import os, signal
_undisturbed = _open
def _open(data):
    if data == {image!r}:
        {fault}
    return _undisturbed(data)
"""
POISON_IMAGE = _BEFORE_DECODING.format(image=_FIRST_IMAGE_OF[0], fault="os.kill(os.getpid(), signal.SIGKILL)")
SILENT_ONCE = """
import os, signal
from pathlib import Path
_undisturbed = Certifier.try_out
def _disturbed(self, task, images, run_id):
    {statement}
    return _undisturbed(self, task, images, run_id)
Certifier.try_out = _disturbed
"""
# Inside Pillow, so that what catches Pillow's errors sees it.
MEMORY_NEVER_SUFFICES = f"""
_undisturbed = Image.open
def _open_without_memory(file, **options):
    if file.getvalue() == {_FIRST_IMAGE_OF[3]!r}:
        raise MemoryError("cannot allocate")
    return _undisturbed(file, **options)
Image.open = _open_without_memory
"""
# Of each kind of request one to S3: by the driver, by an actor.
READ = ("list-type=2", "weights.pt", "03.tar", "run.json", "votes/00003")
EACH_KIND = [*(("GET", name) for name in READ), ("HEAD", "03.tar"), ("PUT", "votes/00003"), ("PUT", "_SUCCESS")]
ALL_BUT_ONE = Comparison(SHARDS * IMAGES, (SHARDS - 1) * IMAGES, 0, 0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows of the small job."""
    return small_job_rows(tmp_path_factory.mktemp("undisturbed"), SHARDS, IMAGES)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The small job, whose shards are given up after two attempts."""
    jobs.write_shards(tmp_path, SHARDS, IMAGES)
    return jobs.write_job(tmp_path, execution={"cpus_per_actor": 1, "actors": 1, "max_attempts": 2})


def in_s3(bucket: str, shards: str) -> list[str]:
    """Options with which a job finds the bucket's tars, named by `shards`, and its weights, and publishes there."""
    paths = {"images.shards": shards, "model.checkpoint": "/weights.pt", "output": "/runs"}
    return [part for key, path in paths.items() for part in ("--set", f'{key}="s3://{bucket}{path}"')]


@pytest.mark.slow  # test_suite_faults.py kills one, too
def test_an_actor_is_killed(job, start, undisturbed):
    """SIGKILL of an actor: its shard is done again by another, and the rows are the same."""
    driver = start(job, inject=before_shards(PAUSE))
    driver.wait_for(DONE, count=2)
    fault = driver.signal_actor(signal.SIGKILL)
    assert driver.wait() == 0, driver.text
    assert len(driver.when(r"^again: \d\d\.tar: an actor died")) in (1, 2), driver.text  # an actor may have two
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record("SIGKILL of an actor", comparison, "0", driver.seconds_to_recover(fault))
    assert comparison == WHOLE


@pytest.mark.slow  # the tests of early exit have no fault, those of faults no early exit
def test_an_actor_and_its_driver_are_killed_under_masks(tmp_path, start):
    """Votes that early exit leaves out are the same ones after SIGKILL of an actor, then of the driver."""
    jobs.write_shards(tmp_path, SHARDS, IMAGES)
    masks = {"kind": "mask", "threat": 3, "per_axis": 3, "fill": "black", "early_exit": True}
    job = jobs.write_job(tmp_path, ablation=masks)
    expected = undisturbed_rows(job, tmp_path / "undisturbed")
    votes = [vote for row in expected for vote in row["votes"]]
    assert 0 < votes.count(None) < len(votes)
    driver = start(job, inject=before_shards(PAUSE))
    driver.wait_for(DONE, count=2)
    driver.signal_actor(signal.SIGKILL)
    driver.wait_for(DONE, count=4)
    driver.process.kill()
    driver.wait()
    driver = start(job)
    assert driver.wait() == 0, driver.text
    assert compare(rows_of(output_of(job)), expected) == WHOLE


@pytest.mark.slow  # test_fleet.py has an actor that ends itself
def test_a_poison_shard_is_given_up(job, start, undisturbed):
    """A shard that kills every actor that touches it is named and left out; all others are published."""
    poison = before_shards("if task.shard.name == '03.tar': os.kill(os.getpid(), signal.SIGKILL)")
    driver = start(job, inject=poison)
    assert driver.wait() == 1, driver.text
    assert "failed: shard 03.tar: given up after 2 attempts, the last: an actor died" in driver.text
    assert "1 of 12 shards are missing" in driver.text
    comparison = compare(rows_of(output_of(job)), undisturbed)
    fault = driver.when("^again: 03.tar")[0]
    record("a poison shard that kills every actor", comparison, "1", driver.when("given up")[0] - fault)
    assert comparison == ALL_BUT_ONE
    assert not list(output_of(job).glob("*/_SUCCESS"))


@pytest.mark.slow  # test_suite_faults.py has two drivers, too
def test_two_drivers_share_a_job(job, start, undisturbed):
    """Started together, both end with 0, each does a part, and no file is written twice."""
    (job.parent / "arrived").mkdir()
    together = before_shards(
        f"arrived = Path({str(job.parent / 'arrived')!r})",
        "(arrived / str(os.getpid())).touch()",
        "while len(list(arrived.iterdir())) < 2: time.sleep(0.05)",
        PAUSE,
    )
    drivers = [start(job, inject=together) for _ in range(2)]
    first_seen: dict[Path, tuple[int, int]] = {}
    while any(driver.process.poll() is None for driver in drivers):
        for file in output_of(job).glob("*/votes/*"):
            first_seen.setdefault(file, (file.stat().st_ino, file.stat().st_mtime_ns))
        time.sleep(0.05)
    assert [driver.wait() for driver in drivers] == [0, 0], "\n\n".join(driver.text for driver in drivers)
    assert len(first_seen) == SHARDS
    assert all((file.stat().st_ino, file.stat().st_mtime_ns) == seen for file, seen in first_seen.items())
    done = [len(driver.when(DONE)) for driver in drivers]
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record(f"two drivers at once ({done[0]} and {done[1]} of {SHARDS} shards done)", comparison, "0, 0")
    assert comparison == WHOLE
    assert all(0 < part < SHARDS for part in done), done


@pytest.mark.slow  # test_driver.py has the interrupt
def test_sigterm_ends_cleanly(job, start, undisturbed):
    """SIGTERM ends with 130 and prints the command that continues; published files stay."""
    driver = start(job, inject=before_shards(PAUSE))
    driver.wait_for(DONE, count=2)
    fault = time.monotonic()
    driver.process.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 130, driver.text
    ended_s = time.monotonic() - fault
    assert "Traceback" not in driver.text
    assert driver.lines[-1][1].startswith("interrupted; go on with: "), driver.text
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record("SIGTERM of the driver (images out: until then)", comparison, "130", ended_s)
    assert 2 * IMAGES <= comparison.images_out < comparison.images_in
    assert comparison.duplicates == comparison.wrong_values == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_actors_are_killed_at_random_moments(tmp_path, start):
    """SIGKILL of 20 actors, as they start, load or vote: each image once, values the same."""
    jobs.write_shards(tmp_path, 40, IMAGES)
    job = jobs.write_job(tmp_path, execution={"cpus_per_actor": 1, "actors": 2, "max_attempts": 20})
    expected = undisturbed_rows(job, tmp_path / "undisturbed")
    driver, random, moments = start(job, inject=before_shards("time.sleep(1)")), np.random.default_rng(0), []
    driver.wait_for(DONE)
    while len(moments) < 20:
        time.sleep(random.uniform(0, 5))
        if actors := driver.actors():
            moments.append(driver.signal_actor(signal.SIGKILL, int(random.choice(actors))))
        assert driver.process.poll() is None, driver.text
    assert driver.wait(500) == 0, driver.text
    comparison = compare(rows_of(output_of(job)), expected)
    slowest_s = max(driver.seconds_to_recover(moment) for moment in moments)
    record("SIGKILL of actors at 20 random moments (the slowest to recover)", comparison, "0", slowest_s)
    assert comparison == Comparison(40 * IMAGES, 40 * IMAGES, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_driver_is_killed_at_random_moments(tmp_path, start):
    """SIGKILL of 20 drivers, half as they start and half at work; the last one ends the job."""
    jobs.write_shards(tmp_path, 200, IMAGES)
    job = jobs.write_job(tmp_path)
    expected = undisturbed_rows(job, tmp_path / "undisturbed")
    random, drivers, slow = np.random.default_rng(0), [], before_shards("time.sleep(1)")
    for number in range(20):
        drivers.append(start(job, inject=slow))
        if number % 2:
            drivers[-1].wait_for(DONE)
        time.sleep(random.uniform(0.2, 5 if number % 2 else 15))
        assert drivers[-1].process.poll() is None, drivers[-1].text
        drivers[-1].process.kill()
        drivers[-1].wait()
    drivers.append(start(job, inject=slow))
    assert drivers[-1].wait(500) == 0, drivers[-1].text
    comparison = compare(rows_of(output_of(job)), expected)
    at_work = [driver for driver in drivers if driver.when(DONE)]
    slowest_s = max(driver.seconds_to_recover(driver.start) for driver in at_work)
    record(
        f"SIGKILL of the driver at 20 random moments ({len(at_work) - 1} at work), then the same command",
        comparison,
        "0",
        slowest_s,
    )
    assert comparison == Comparison(200 * IMAGES, 200 * IMAGES, 0, 0)


@pytest.mark.slow
def test_a_silent_actor_is_noticed(job, start, undisturbed):
    """An actor that neither dies nor answers is replaced, though it still holds its CPUs."""
    jobs.write_job(job.parent, execution={"cpus_per_actor": 0.75 * CPUS, "actors": 1, "max_attempts": 2})
    driver = start(job, inject=before_shards(PAUSE) | {FLEET: "SILENT_S, LOOK_S = 8.0, 1.0"})
    driver.wait_for(DONE, count=2)
    fault = driver.signal_actor(signal.SIGSTOP)
    assert driver.wait() == 0, driver.text
    assert len(driver.when("^again: .*has not answered for 8 s", after=fault)) in (1, 2), driver.text
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record(
        "an actor falls silent (SIGSTOP; noticed after 8 s here, 30 s by default)",
        comparison,
        "0",
        driver.seconds_to_recover(fault),
    )
    assert comparison == WHOLE
    assert driver.seconds_to_recover(fault) < 60


@pytest.mark.slow
def test_a_poison_shard_on_the_first_actor(job, start, undisturbed):
    """A shard that kills the actor which tries the model out does not end the run."""
    poison = {"smoothcert.workers.tars.images": POISON_IMAGE}
    driver = start(job, inject=poison)
    assert driver.wait() == 1, driver.text
    assert "failed: shard 00.tar: given up after 2 attempts" in driver.text
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record(
        "a poison shard that the first look at the model meets",
        comparison,
        "1",
        driver.when("given up")[0] - driver.start,
    )
    assert comparison == ALL_BUT_ONE


@pytest.mark.slow
def test_the_first_actor_falls_silent(job, start, undisturbed):
    """An actor that falls silent while it tries the model out is replaced, too."""
    silent = SILENT_ONCE.format(statement=once(job.parent, "os.kill(os.getpid(), signal.SIGSTOP)"))
    driver = start(
        job,
        inject={
            CERTIFIER: silent,
            FLEET: "SILENT_S, LOOK_S = 8.0, 1.0",
        },
    )
    assert driver.wait() == 0, driver.text
    fault = driver.when("^run ")[0]
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record("the first actor falls silent as it tries the model out", comparison, "0", driver.seconds_to_recover(fault))
    assert (job.parent / "happened").exists()
    assert comparison == WHOLE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("a RuntimeError, once", "RuntimeError('CUDA error: unspecified launch failure')"),
        ("an actor out of memory, once", "MemoryError('cannot allocate')"),
    ],
)
def test_an_error_that_passes_is_tried_again(job, start, undisturbed, fault, error):
    """The rows are those of an undisturbed run."""
    driver = start(job, inject=before_shards(once(job.parent, f"raise {error}")))
    assert driver.wait() == 0, driver.text
    (moment,) = driver.when(rf"^again: \d\d.tar: {error.partition('(')[0]}: ")
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record(fault, comparison, "0", driver.seconds_to_recover(moment))
    assert comparison == WHOLE


@pytest.mark.slow
def test_a_broken_process_is_replaced(job, start, undisturbed):
    """After a CUDA error every shard fails in that process. It is replaced before it uses up their attempts."""
    breaks = once(job.parent, "Certifier.broken = True")
    fails = 'if getattr(Certifier, "broken", False): raise RuntimeError("CUDA error: an illegal memory access")'
    driver = start(job, inject=before_shards(breaks, fails))
    assert driver.wait() == 0, driver.text
    moment, *_ = driver.when(r"^again: \d\d.tar: RuntimeError: CUDA error")
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record("an error that breaks an actor's process", comparison, "0", driver.seconds_to_recover(moment))
    assert comparison == WHOLE


@pytest.mark.slow
def test_out_of_memory_each_time(job, start, undisturbed):
    """A shard for which memory never suffices is given up; it has no rows with `decode_error`."""
    driver = start(job, inject={"smoothcert.workers.tars.images": MEMORY_NEVER_SUFFICES})
    assert driver.wait() == 1, driver.text
    assert "failed: shard 03.tar: given up after 2 attempts, the last: MemoryError" in driver.text
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record("an actor out of memory, each time", comparison, "1")
    assert comparison == ALL_BUT_ONE


@pytest.mark.slow
def test_a_tar_that_changed(job, start, undisturbed):
    """A tar that changed after the plan fails by name; with the planned tar back, the run completes."""
    driver = start(job, inject=before_shards(PAUSE))
    driver.wait_for(DONE, count=2)
    tar = job.parent / "tars" / f"{SHARDS - 1}.tar"
    planned = tar.read_bytes()
    tars.write_tar(tar.parent, planned.replace(b"\n", b"\r"), tar.name)
    assert driver.wait() == 1, driver.text
    assert f"failed: shard {tar.name}: {tar} changed since the run was planned" in driver.text
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record("a tar changes between plan and read", comparison, "1")
    assert comparison == ALL_BUT_ONE
    tars.write_tar(tar.parent, planned, tar.name)
    again = start(job)
    assert again.wait() == 0, again.text
    assert compare(rows_of(output_of(job)), undisturbed) == WHOLE


CLOCK_AHEAD = """
import time
_now = time.time
time.time = lambda: _now() + 86_400
"""


@pytest.mark.slow
def test_two_drivers_of_which_one_has_a_clock_a_day_ahead(job, start, undisturbed):
    """To the one ahead, files that the other is writing look a day old; nothing is lost or doubled."""
    drivers = [start(job, inject=before_shards(PAUSE))]
    drivers[0].wait_for(DONE)
    drivers.append(start(job, inject=before_shards(PAUSE) | {"smoothcert.workers.storage.folder_store": CLOCK_AHEAD}))
    assert [driver.wait() for driver in drivers] == [0, 0], "\n\n".join(driver.text for driver in drivers)
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record("clock skew: two drivers at once, one a day ahead", comparison, "0, 0")
    assert comparison == WHOLE


@pytest.mark.slow
def test_a_clock_that_s3_refuses(job, filled_bucket, s3, start, undisturbed):
    """If the clock is an hour off, one line says so and nothing is written; with the right time the run completes."""
    options = in_s3(filled_bucket, shards="")
    ahead = (
        "_now = get_current_datetime\ndef get_current_datetime(*args): return _now(*args) + datetime.timedelta(hours=1)"
    )
    driver = start(job, *options, inject={"botocore.auth": f"import datetime\n{ahead}"})
    assert driver.wait() == 1, driver.text
    (error,) = [line for _, line in driver.lines if line.startswith("error: ")]
    assert "RequestTimeTooSkewed" in error
    assert error.endswith("; set the clock of this machine")
    again = start(job, *options)
    assert again.wait() == 0, again.text
    comparison = compare(rows_of(fetched(filled_bucket, job.parent / "copy")), undisturbed)
    record(
        "clock skew: an hour off for S3, then the same command",
        comparison,
        "1, 0",
        again.seconds_to_recover(again.start),
    )
    assert comparison == WHOLE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk(job, start, undisturbed, small_disk):
    """The run ends with one line and no partial file; with free space the same command completes it."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((1 << 20) - (96 << 10)))
    options = ("--set", f"output={small_disk}/runs")
    driver = start(job, *options)
    code = driver.wait()
    errors = [line for _, line in driver.lines if line.startswith("error: ")]
    assert code in (1, 2), driver.text
    assert len(errors) == 1, driver.text
    assert "No space left on device; make room" in errors[0]
    assert "Traceback" not in driver.text
    part = compare(rows_of(small_disk / "runs"), undisturbed)
    assert 0 < part.images_out < part.images_in
    assert part.duplicates == part.wrong_values == 0
    assert not list((small_disk / "runs").glob("*/.incoming/*"))
    fault = driver.lines[-1][0]
    ballast.unlink()
    again = start(job, *options)
    assert again.wait() == 0, again.text
    comparison = compare(rows_of(small_disk / "runs"), undisturbed)
    record(
        "the output's disk is full, then the same command", comparison, f"{code}, 0", again.seconds_to_recover(fault)
    )
    assert comparison == WHOLE


@pytest.fixture
def filled_bucket(bucket: str, job: Path) -> str:
    """A bucket with the small job's tars and weights."""
    client = boto3.client("s3")
    for file in (*(job.parent / "tars").iterdir(), job.parent / "weights.pt"):
        client.upload_file(str(file), bucket, file.name)
    return bucket


def fetched(bucket: str, folder: Path) -> Path:
    """The runs of a bucket, copied into a folder."""
    client = boto3.client("s3")
    for entry in client.list_objects_v2(Bucket=bucket, Prefix="runs/")["Contents"]:
        path = folder / entry["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, entry["Key"], str(path))
    return folder / "runs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("500", [Fault(*request, 500) for request in EACH_KIND]),
        ("503", [Fault(*request, 503) for request in EACH_KIND]),
        ("409 to a PUT", [Fault("PUT", name, 409) for name in ("run.json", "votes/00003", "_SUCCESS")]),
        ("412 after success", [Fault("PUT", name, "lost answer") for name in ("run.json", "votes/00003", "_SUCCESS")]),
        ("dropped connection mid-body", [Fault("GET", name, "drop") for name in READ]),
        ("a stall of 5 s mid-body", [Fault("GET", name, "stall") for name in READ]),
    ],
)
def test_s3_in_trouble(job, filled_bucket, s3, start, undisturbed, name, faults):
    """A single error of S3, of whatever request, costs no image and needs no second run."""
    options = in_s3(filled_bucket, shards=f"/{{00..{SHARDS - 1}}}.tar")
    with FaultyS3(s3["AWS_ENDPOINT_URL"], faults).running() as proxy:
        driver = start(job, *options, environment={"AWS_ENDPOINT_URL": proxy.url})
        code = driver.wait()
    assert code == 0, driver.text
    comparison = compare(rows_of(fetched(filled_bucket, job.parent / "fetched")), undisturbed)
    assert not proxy.waiting, driver.text
    assert set(proxy.recovered_s) == set(faults), driver.text
    record(f"S3: {name} ({len(faults)} requests)", comparison, str(code), max(proxy.recovered_s.values()))
    assert comparison == WHOLE
    if name == "412 after success":
        assert {path.rpartition("/")[2] for status, path in proxy.answers if status == 412} >= {
            fault.path.rpartition("/")[2] for fault in faults if "votes" not in fault.path
        }
        assert any(status == 412 and "votes/00003" in path for status, path in proxy.answers)
