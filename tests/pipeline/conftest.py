"""One Ray for all tests of the pipeline, for it takes seconds to start; drivers with a Ray of their own; runs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from pipeline import cluster
from tests.helpers.faults import Driver
from tests.helpers.finished_runs import RUNS, finish


@pytest.fixture(scope="session")
def ray_here():
    """Ray on this machine, as the driver starts it."""
    cluster.connect()
    yield
    ray.shutdown()


@pytest.fixture
def start() -> Iterator[Callable[..., Driver]]:
    """Starts drivers, and ends what is left of them."""
    drivers: list[Driver] = []

    def start_one(*arguments, **options):
        drivers.append(Driver(*arguments, **options))
        return drivers[-1]

    yield start_one
    for driver in drivers:
        driver.clean_up()


@pytest.fixture(scope="session", params=RUNS)
def any_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of each kind; not to be changed."""
    return finish(tmp_path_factory.mktemp(request.param), **RUNS[request.param])


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of columns; not to be changed."""
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def finished_partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of the first 9 images; not to be changed."""
    return finish(tmp_path_factory.mktemp("partial"), **RUNS["limit"])


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of one run, to be changed; its tars and weights are shared."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))
