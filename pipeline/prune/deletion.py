"""Delete a run so that whatever is left of it after a crash is neither a run nor mistaken for one.

run.json goes first: it gets the name pruned.json. From then on no command sees a run here, and the same `prune` finds
the rest by that name, whenever it comes. Only then files are removed, first _SUCCESS, which promises all others. If
somebody certifies the same job before they are gone, the run begins anew: files of votes that are still there belong to
the same identity, so it takes them as published, and _SUCCESS is made again. pruned.json goes last.

Not covered: which runs may be deleted (choice.py).
"""

from typing import NamedTuple

from smoothcert.manifests.job import Storage
from smoothcert.pipeline.overview.stored import files_below
from smoothcert.workers.iteration import map_ahead
from smoothcert.workers.runs.layout import PRUNED, RUN_JSON, SUCCESS, is_of_a_run
from smoothcert.workers.storage.store import AnyStore, Store

_THREADS = 8  # S3 answers after some 20 ms


class Rest(NamedTuple):
    """What an interrupted prune has left of a run: its folder, and the bytes in it."""

    url: str
    size_bytes: int


def rests_of(output: str, storage: Storage) -> list[Rest]:
    """The runs of an output whose deletion was interrupted."""
    store = AnyStore(storage)
    return [
        Rest(url, sum(entry.size for entry in files_below(url, store)))
        for url in store.folders(output)
        if store.find(f"{url}/{PRUNED}") is not None and store.find(f"{url}/{RUN_JSON}") is None
    ]


def delete(url: str, store: Store) -> list[str]:
    """Delete a run, or what is left of it.

    Args:
        url: OUTPUT/RUN_ID.
        store: the store that holds it.
    Returns:
        URLs of files that smoothcert did not write. They stay.
    Raises:
        RequestError, RunError: the storage refuses or fails; the same call continues.
    """
    if store.find(f"{url}/{RUN_JSON}") is not None:
        store.move(f"{url}/{RUN_JSON}", f"{url}/{PRUNED}")
    store.remove(f"{url}/{SUCCESS}")
    names = [entry.url[len(url) + 1 :] for entry in files_below(url, store)]
    ours = [f"{url}/{name}" for name in names if is_of_a_run(name) and name != PRUNED]
    for _ in map_ahead(store.remove, ours, threads=_THREADS, count=_THREADS):
        pass
    store.remove(f"{url}/{PRUNED}")
    _remove_empty_folders(url, store)
    return [f"{url}/{name}" for name in names if not is_of_a_run(name)]


def _remove_empty_folders(url: str, store: Store) -> None:
    for folder in store.folders(url):
        _remove_empty_folders(folder, store)
    store.remove_folder(url)
