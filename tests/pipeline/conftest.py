"""One Ray for all tests of the pipeline: it takes seconds to start."""

import pytest
import ray

from pipeline import cluster


@pytest.fixture(scope="session")
def ray_here():
    """Ray on this machine, as the driver starts it."""
    cluster.connect()
    yield
    ray.shutdown()
