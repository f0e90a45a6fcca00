"""Every method of an S3 store, called once."""

from collections.abc import Callable

from smoothcert.workers.storage.s3_store import S3Store

NAME = "votes/00000-a.parquet"


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
        "local": fetch,
        "publish": lambda: store.publish(f"{bucket}/run", NAME, b"data"),
        "move": lambda: store.move(f"{bucket}/run/{NAME}", f"{bucket}/run/moved"),
        "remove": lambda: store.remove(f"{bucket}/run/moved"),
    }
