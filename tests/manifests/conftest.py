"""A folder of tars and a job file."""

import pytest


@pytest.fixture
def folder(tmp_path):
    """Five tars and a stray file."""
    for name in ("v-00", "v-01", "v-02", "t-00", "t-01"):
        (tmp_path / f"{name}.tar").write_bytes(name.encode())
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


@pytest.fixture
def job_file(tmp_path):
    """A valid job file with relative paths."""
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: n\nimages: {shards: 'tars/a-{0..1}.tar'}\noutput: runs\nablation: {kind: column, size: 19}\n"
        "model: {architecture: vit_tiny_patch16_224, checkpoint: ~/w.pt, classes: 10}\n"
    )
    return path
