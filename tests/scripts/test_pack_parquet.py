"""Parquet files of images become tars that the product reads."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.tars import images_field, png
from workers.shard_reader import read_samples

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pack_parquet.py"


def test_every_row_is_a_sample(tmp_path):
    """Key, label and bytes survive, in order, or shuffled; the last tar may be smaller."""
    images = [png(seed=number) for number in range(7)]
    table = pa.table(
        {
            "key": [f"{number:05d}" for number in range(7)],
            "label": pa.array([number % 3 for number in range(7)], pa.int8()),
            "jpg": images,
        }
    )
    pq.write_table(table, tmp_path / "small.parquet")
    command = [sys.executable, SCRIPT, tmp_path / "small.parquet", tmp_path / "tars", "--images-per-tar", "3"]
    subprocess.run(command, check=True)
    packed = sorted((tmp_path / "tars").iterdir())
    assert [tar.name for tar in packed] == ["small-000.tar", "small-001.tar", "small-002.tar"]
    samples = [sample for tar in packed for sample in read_samples(tar, images_field(), classes=3)]
    assert [sample.image for sample in samples] == images
    assert [(sample.key, sample.label) for sample in samples] == [(f"{n:05d}", n % 3) for n in range(7)]
    subprocess.run([*command, "--shuffle", "0"], check=True)
    shuffled = [sample for tar in packed for sample in read_samples(tar, images_field(), classes=3)]
    assert [sample.key for sample in shuffled] != [sample.key for sample in samples]
    contents = [sorted((sample.key, sample.label, sample.image) for sample in each) for each in (samples, shuffled)]
    assert contents[0] == contents[1]
