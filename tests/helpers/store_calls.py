"""Every method of an S3 store, called once."""

from collections.abc import Callable

from smoothcert.workers.storage.s3_store import S3Store

NAME = "votes/00000-a.parquet"
RANGES_OF = b"0123456789"
RANGES = [
    (0, 10, RANGES_OF),  # all of it
    (3, 4, b"3456"),
    (8, 5, b"89"),  # the file ends before
    (10, 3, b""),  # it has ended
    (99, 3, b""),
    (3, 0, b""),
]
"""Ranges of a file that holds RANGES_OF: start, length, the bytes there."""


def all_calls(store: S3Store, bucket: str) -> dict[str, Callable[[], object]]:
    """Each method of a store, on `a`, a small object, and `large`, which is fetched in parts."""

    def fetch() -> None:
        with store.local(f"{bucket}/data/large.tar"):
            pass

    return {
        "find": lambda: store.find(f"{bucket}/data/a.tar"),
        "files": lambda: store.files(f"{bucket}/data"),
        "folders": lambda: store.folders(bucket),
        "listing": lambda: store.listing(f"{bucket}/data", most=1),
        "read": lambda: store.read(f"{bucket}/data/a.tar"),
        "read_range": lambda: store.read_range(f"{bucket}/data/a.tar", 1, 2),
        "local": fetch,
        "publish": lambda: store.publish(f"{bucket}/run", NAME, b"data"),
        "move": lambda: store.move(f"{bucket}/run/{NAME}", f"{bucket}/run/moved"),
        "remove": lambda: store.remove(f"{bucket}/run/moved"),
    }
