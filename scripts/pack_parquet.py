"""Pack a Parquet file of images (columns key, label, jpg) into WebDataset tars.

python scripts/pack_parquet.py test.parquet data/cifar10-test [--images-per-tar 1000] [--shuffle SEED]

Shuffled, each tar holds a fair sample: what a training set needs, of which some tars are held out.
"""

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images-per-tar", type=int, default=1000)
    parser.add_argument("--shuffle", type=int, metavar="SEED")
    arguments = parser.parse_args()

    arguments.folder.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(arguments.parquet, columns=["key", "label", "jpg"])
    if arguments.shuffle is not None:
        table = table.take(np.random.default_rng(arguments.shuffle).permutation(len(table)))
    batches = table.combine_chunks().to_batches(arguments.images_per_tar)
    for number, batch in enumerate(batches):
        with tarfile.open(arguments.folder / f"{arguments.parquet.stem}-{number:03d}.tar", "w") as tar:
            for row in batch.to_pylist():
                _add(tar, f"{row['key']}.jpg", row["jpg"])
                _add(tar, f"{row['key']}.cls", str(row["label"]).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
