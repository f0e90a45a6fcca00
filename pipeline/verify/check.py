"""`smoothcert verify`: check a run with other code than made it.

Every row is recounted, every file is hashed, and everything is compared with everything else.

The files of this room read Parquet, run.json and _SUCCESS alone. They share no code with what makes a run (geometry,
certificates, table of votes, summary), so a defect there shows here as a contradiction. Where speed allows, they are
plain: each offset lists its pixels, a patch is tried at every place, and the rules are written as docs/certificates.md
states them.

    record.py         reads run.json and _SUCCESS       entries.py    checks the types of other entries
    identity.py       compares run.json with itself
    files.py          checks one file of votes          checksum.py   hashes its values
    rows.py           checks each row
    recount.py        votes of columns, rows and blocks -> certificates, by the sets of frame.py
    recount_masks.py  votes of masks -> certificates, by the sets of masks.py
    figures.py        sums up the rows                  findings.py   what is wrong, and where
    replay.py         casts votes again, with the model
    sources.py        finds its tars and checkpoint     evidence.py   says what that proves
    adopted.py        compares files that were taken over with those of the run that they come from

Found: all that contradicts the votes (prediction, counts, runner-up, max columns; certificates of masks, and votes that
are null though they decide something), the job (run id, identity, geometry, classes, limit), its own row (status,
label, image size, nulls), the rows before it (key, index, place in the tar), the checksum of the columns, or the hash
and the figures in _SUCCESS.

Not found: changes that contradict nothing. Hashes find corruption, not forgery. A forger who also renews checksum,
hashes and figures can change labels, margins and image hashes, or votes together with all that follows from them, drop
rows of a shard without limit, or turn a row into an error. `--replay` compares rows with the tars and the checkpoint,
and says how many forged images it may miss.
"""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.console.bars import OnProgress
from smoothcert.pipeline.processes import map_in_processes
from smoothcert.pipeline.verify.adopted import Adopted, check_adopted
from smoothcert.pipeline.verify.figures import Totals, check_success
from smoothcert.pipeline.verify.files import FileTask, check_file
from smoothcert.pipeline.verify.findings import Finding
from smoothcert.pipeline.verify.identity import check_record
from smoothcert.pipeline.verify.record import CheckedRun, Success, open_run, read_success
from smoothcert.pipeline.verify.verdict import Report
from smoothcert.workers.extras import needs_certify
from smoothcert.workers.storage.store import AnyStore, Store

if TYPE_CHECKING:
    from smoothcert.pipeline.verify.evidence import Evidence
    from smoothcert.pipeline.verify.replay import Replayed

BYTES_WORTH_PROCESSES = 32 * 2**20
"""Files with fewer bytes in all are checked in this process: starting others would take as long."""


class OpenedRun(Protocol):
    """What a caller opened: where it lies is all that is taken from it."""

    @property
    def url(self) -> str: ...
    @property
    def store(self) -> Store: ...


@needs_certify
def verify(
    run: OpenedRun | str | Path,
    *,
    replay: int = 0,
    seed: int | None = None,
    images: str | None = None,
    checkpoint: str | None = None,
    storage: Storage | None = None,
    hear: OnProgress = lambda *_: None,
    processes: int = 1,
    allow_code: bool = False,
) -> Report:
    """Check everything that a run has.

    Args:
        run: its folder, with run.json, as a path or URL, or a Run.
        replay: number of random images to vote on again.
        seed: of the random choice; None: a new seed.
        images: folder to search, with all folders below, for the tars of the replay; None: where run.json says.
        checkpoint: file with the weights of the replay; None: the one that run.json names.
        storage: how to reach the run, `images` and `checkpoint`; None: as the Run does. What run.json names is
            reached as its job says.
        hear: takes the progress of the check.
        processes: number of processes that check files. Several import the calling script again, so a script must
            start its work under `if __name__ == "__main__":`.
        allow_code: whether a replay may run code that run.json names.
    Raises:
        RequestError: run.json is missing or damaged; to replay, a tar or the checkpoint is missing.
        RunError: a process ended early.
    """
    checked = open_run(*_place_of(run, storage))
    success = read_success(checked)  # before the listing: it is written last
    sizes = {f"votes/{Path(entry.url).name}": entry.size for entry in checked.store.files(f"{checked.url}/votes")}
    published = {name: sizes[name] for name in checked.shards if name in sizes}
    files = _check_files(checked, success, published, processes, hear)
    findings = [*check_record(checked)]
    findings += [
        Finding(name, "belongs to no shard of this run") for name in sorted(sizes.keys() - checked.shards.keys())
    ]
    adoptions = check_adopted(checked, files.adopted)
    findings += [*files.findings, *adoptions.findings]
    notices = [*adoptions.notices]
    evidence = None
    if success.is_there:
        all_readable = len(files.voted) == len(checked.shards)
        totals = files.totals if all_readable else None
        findings += check_success(checked, success, published, totals, adoptions.counts)
    else:
        notices += [f"unfinished: {len(published)} of {len(checked.shards)} shards are published"]
    if replay:
        again = _replay(checked, files.voted, replay, seed, hear, images, checkpoint, allow_code=allow_code)
        findings += again.findings
        notices += again.notices
        evidence = again.evidence
    complete = success.is_there and len(published) == len(checked.shards)
    return _report(checked, files.totals, findings, notices, evidence, files=len(published), complete=complete)


def _place_of(run: OpenedRun | str | Path, storage: Storage | None) -> tuple[str, Storage]:
    """The URL of a run, and how to reach it."""
    if isinstance(run, str | Path):
        return str(run), storage or Storage()
    url, store = getattr(run, "url", None), getattr(run, "store", None)
    if not isinstance(url, str):
        raise RequestError(f"run: expected a Run, or its path or URL, not {type(run).__name__}")
    return url, storage or (store.settings if isinstance(store, AnyStore) else Storage())


class _CheckedFiles(NamedTuple):
    """The results of all files of votes; `voted` holds the rows with votes of each readable file, `adopted` what files
    say that were taken over."""

    findings: list[Finding]
    voted: dict[str, Sequence[int]]
    totals: Totals
    adopted: dict[str, Adopted]


def _check_files(
    run: CheckedRun, success: Success, sizes: Mapping[str, int], processes: int, hear: OnProgress
) -> _CheckedFiles:
    """Check the files of votes; `sizes` holds their sizes in bytes, by name."""
    few = sum(sizes.values()) < BYTES_WORTH_PROCESSES
    findings: list[Finding] = []
    voted: dict[str, Sequence[int]] = {}
    totals = Totals()
    adopted: dict[str, Adopted] = {}
    hear("files", 0, len(sizes))
    tasks = [FileTask.of(run, name, success.record) for name in sizes]
    processes = 1 if few else min(processes, len(tasks))
    for done, (_, checked) in enumerate(map_in_processes(check_file, tasks, processes), start=1):
        findings += checked.findings
        if checked.totals is not None:
            voted[checked.name] = checked.voted
            totals += checked.totals
        if checked.adopted is not None:
            adopted[checked.name] = checked.adopted
        hear("files", done, len(sizes))
    return _CheckedFiles(findings, voted, totals, adopted)


def _replay(
    run: CheckedRun,
    voted: Mapping[str, Sequence[int]],
    number: int,
    seed: int | None,
    hear: OnProgress,
    images: str | None,
    checkpoint: str | None,
    *,
    allow_code: bool,
) -> "Replayed":
    from smoothcert.pipeline.verify.replay import replay  # loads torch

    hear("images to replay, the model is loading", 0, number)
    seed = secrets.randbelow(2**32) if seed is None else seed
    return replay(run, voted, number, seed, hear, images_folder=images, checkpoint=checkpoint, allow_code=allow_code)


def _report(
    run: CheckedRun,
    totals: Totals,
    findings: list[Finding],
    notices: list[str],
    evidence: "Evidence | None",
    *,
    files: int,
    complete: bool,
) -> Report:
    record = run.record
    return Report(
        run_id=record.run_id,
        job=_text(record.name),
        checkpoint=_text(record.checkpoint.url),
        checkpoint_sha256=_text(record.checkpoint.sha256),
        complete=complete,
        partial=record.partial,
        limit=run.job.images.limit or 0 if record.partial else None,
        shards=len(run.shards),
        files=files,
        rows=totals.rows,
        figures=totals.figures(run.job),
        findings=tuple(findings),
        notices=tuple(notices),
        replay=evidence,
    )


def _text(entry: Any) -> str | None:
    return entry if isinstance(entry, str) else None
