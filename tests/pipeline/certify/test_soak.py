"""Ten minutes of random kills: of actors, and of the driver itself."""

import os
import signal
import time

import numpy as np
import pytest

from tests.helpers import jobs
from tests.helpers.faults import Comparison, before_shards, compare, record, rows_of, undisturbed_rows

SHARDS, IMAGES, SOAK_S = 240, 12, 600


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_soak(tmp_path, start):
    """240 shards, an actor killed every 12 s and the driver every 90 s on average, for ten minutes; then to the end."""
    jobs.write_shards(tmp_path, SHARDS, IMAGES)
    job = jobs.write_job(tmp_path, execution={"cpus_per_actor": 1, "actors": 2, "max_attempts": 50})
    expected = undisturbed_rows(job, tmp_path / "undisturbed")
    slow = before_shards("time.sleep(6)")  # so that the run lasts as long as the kills
    random, began, kills, drivers = np.random.default_rng(0), time.monotonic(), 0, 1
    driver = start(job, inject=slow)
    while time.monotonic() - began < SOAK_S and driver.process.poll() is None:
        time.sleep(random.exponential(12))
        if random.random() < 12 / 90:
            os.kill(driver.process.pid, signal.SIGKILL)
            driver.wait()
            driver, drivers = start(job, inject=slow), drivers + 1
        elif actors := driver.actors():
            driver.signal_actor(signal.SIGKILL, int(random.choice(actors)))
            kills += 1
    assert driver.wait(1800) == 0, driver.text
    minutes = (time.monotonic() - began) / 60
    comparison = compare(rows_of(tmp_path / "runs"), expected)
    record(f"soak of {minutes:.0f} min: {kills} actors and {drivers - 1} drivers killed", comparison, "0")
    assert comparison == Comparison(SHARDS * IMAGES, SHARDS * IMAGES, 0, 0)
    assert minutes >= SOAK_S / 60
    assert kills >= 20
