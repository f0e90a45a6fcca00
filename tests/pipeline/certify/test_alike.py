"""Actors that would vote differently are refused before they do."""

import numpy as np
import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.certify.alike import Alike
from smoothcert.workers.runs.environment import environment_of
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import Introduction
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.records import run_record

ENVIRONMENT = {"versions": {"torch": "2.15.0"}, "decoder": "Pillow 13", "device": "cpu x86_64"}
LOGITS = np.linspace(-3, 3, 10, dtype=np.float32)


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path / "run"), run_record(), AnyStore(Storage()))


def actor(logits=LOGITS, *, environment=ENVIRONMENT, votes_version=1):
    return Introduction("run", "node", environment, votes_version, logits)


@pytest.mark.parametrize(
    ("dtype", "apart", "refused"),
    [("float32", 1e-4, False), ("float32", 1e-2, True), ("bfloat16", 1e-2, False), ("bfloat16", 1.0, True)],
)
def test_logits_may_differ_by_rounding_only(run, dtype, apart, refused):
    """What counts as rounding depends on the number format."""
    alike = Alike(run, dtype, strict=False)
    alike.check(actor())
    if refused:
        with pytest.raises(RunError, match="do not vote alike"):
            alike.check(actor(LOGITS + np.float32(apart)))
    else:
        alike.check(actor(LOGITS + np.float32(apart)))


def test_an_actor_whose_weights_give_nan_is_unlike_the_others(run):
    """NaN is like NaN only: weights that give it everywhere make rows that say so."""
    broken = np.full_like(LOGITS, np.nan)
    alike = Alike(run, "float32", strict=False)
    alike.check(actor(broken))
    alike.check(actor(broken))
    with pytest.raises(RunError):
        alike.check(actor())


def test_other_code_is_refused(run):
    """Votes of another votes_version do not belong into one run."""
    alike = Alike(run, "float32", strict=False)
    alike.check(actor())
    with pytest.raises(RunError, match="votes_version 2 and 1"):
        alike.check(actor(votes_version=2))


def test_strict_versions_refuses_another_environment(run):
    """Strict counts published files too; otherwise machines may differ."""
    other = ENVIRONMENT | {"device": "NVIDIA H200"}
    lenient = Alike(run, "float32", strict=False, published=[environment_of(other)])
    lenient.check(actor())
    lenient.check(actor(environment=other))
    strict = Alike(run, "float32", strict=True)
    strict.check(actor())
    strict.check(actor())
    with pytest.raises(RequestError, match="H200"):
        strict.check(actor(environment=other))
    with pytest.raises(RequestError, match="H200"):
        Alike(run, "float32", strict=True, published=[environment_of(other)]).check(actor())


def test_the_first_actor_of_all_drivers_counts(run):
    """Another driver, or the same command on another day, compares with what the run's first actor said."""
    Alike(run, "float32", strict=False).check(actor())
    later = Alike(run, "float32", strict=False)
    with pytest.raises(RunError, match="do not vote alike"):
        later.check(actor(LOGITS + np.float32(1)))
    later.check(actor(LOGITS + np.float32(1e-4)))
    run.store.move(f"{run.url}/introduction.json", f"{run.url}/away")
    run.store.publish(run.url, "introduction.json", b"{}")
    with pytest.raises(RunError, match=r"introduction\.json is damaged \(node is missing\); move it away and run"):
        Alike(run, "float32", strict=False).check(actor())
