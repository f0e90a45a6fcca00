"""Pack a Parquet file of images (columns key, label, jpg) into WebDataset tars.

python scripts/pack_parquet.py test.parquet data/cifar10-test [--images-per-tar 1000]
"""

import argparse
import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images-per-tar", type=int, default=1000)
    arguments = parser.parse_args()

    arguments.folder.mkdir(parents=True, exist_ok=True)
    batches = pq.ParquetFile(arguments.parquet).iter_batches(arguments.images_per_tar)
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
