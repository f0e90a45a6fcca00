"""Every kind of study has its measures."""

import pyarrow as pa
import pytest

from smoothcert.manifests.studies import KINDS
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.studies.measures import Loader, kind_of
from smoothcert.workers.studies.worker import COLUMNS
from tests.helpers import jobs
from tests.helpers.studied import CPU, images

LEAST = {
    "patch-attack": {"height": 2, "width": 2, "steps": 2, "queries": 2},
    "norm-attack": {"eps": 0.1, "steps": 2, "queries": 2},
}


@pytest.fixture
def loader(tmp_path):
    (tmp_path / "tars").mkdir()
    return Loader(load_job(jobs.write_job(tmp_path)), tmp_path / "weights.pt", None, CPU)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_has_columns_that_an_image_without_values_can_have(name):
    kind = kind_of(KINDS[name](**LEAST.get(name, {})))
    assert isinstance(kind.columns, pa.Schema)
    assert all(field.nullable for field in kind.columns)
    assert not {field.name for field in COLUMNS} & set(kind.columns.names)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_measures_a_network_that_it_loads_itself(name, loader):
    pytest.importorskip("pyautoattack")
    settings = KINDS[name](**LEAST.get(name, {}))
    kind = kind_of(settings)
    some = images(2)
    if kind.needs_votes:
        some = some._replace(votes=loader.voter().votes(some.pixels).classes.numpy())
    measures = kind.measures(settings, loader)
    before = measures.forwards
    rows = measures.measure(some)
    assert len(rows) == 2
    assert measures.forwards > before
    pa.Table.from_pylist(rows, schema=kind.columns)
