"""One Ray for all tests of the pipeline, for it takes seconds to start; drivers with a Ray of their own."""

from collections.abc import Callable, Iterator

import pytest
import ray

from smoothcert.pipeline.cluster.connection import connect
from tests.helpers.actors_here import actors_here
from tests.helpers.faults import Driver


@pytest.fixture(scope="session")
def ray_here():
    """Ray on this machine, as the driver starts it."""
    connect()
    yield
    ray.shutdown()


@pytest.fixture
def in_process(ray_here) -> Iterator[None]:
    """Actors run in this process: for what a driver does, whatever its actors are."""
    with actors_here():
        yield


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
