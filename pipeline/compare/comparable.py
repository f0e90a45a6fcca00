"""Whether two runs can be compared: why not, and which of the reasons a user may allow.

Not covered: which images of the two runs are the same (pairs.py).
"""

from collections.abc import Iterable, Iterator, Mapping

from smoothcert.manifests.ablation import Ablation, MaskAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.identity import differences
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.workers.runs.run import Run

_KEYS = {
    "images.label": Reason.labels,
    "images.first_label": Reason.labels,
    "images.label_names_sha256": Reason.labels,
    "images": Reason.images,
    "model.classes": Reason.classes,
    "preprocess": Reason.preprocessing,
}
"""Key paths of the identity whose difference is a reason; a longer path goes before a shorter one."""


class IncomparableError(RequestError):
    """Two runs cannot be compared.

    Args:
        reasons: why not; each could be allowed.
    """

    def __init__(self, reasons: Mapping[Reason, str]) -> None:
        lines = [f"the runs cannot be compared: {why}" for why in reasons.values()]
        remedy = " ".join(f"--allow {reason}" for reason in reasons)
        super().__init__("\n".join([*lines[:-1], f"{lines[-1]}; name other runs, or compare them anyway: {remedy}"]))
        self.reasons = reasons


def differing_keys(base: Run, new: Run) -> list[str]:
    """The key paths at which the identities of two runs differ."""
    return differences(base.record.identity, new.record.identity)


def reasons_against(base: Run, new: Run, complete: tuple[bool, bool]) -> dict[Reason, str]:
    """Why two runs cannot be compared: each reason with its explanation. `complete` says whether either run is."""
    found: dict[Reason, str] = {}
    if unfinished := list(_unfinished({base.url: base, new.url: new}.values(), complete)):
        found[Reason.unfinished] = "; ".join(unfinished)
    keys = differing_keys(base, new)
    for reason in (Reason.images, Reason.labels, Reason.classes, Reason.preprocessing):
        if differing := [key for key in keys if _reason_of(key) == reason]:
            found[reason] = f"the runs differ in {', '.join(differing)}"
    if threats := list(_threats(base, new)):
        found[Reason.threat] = "; ".join(threats)
    return found


def _threats(base: Run, new: Run) -> Iterator[str]:
    """Why a certificate of one run is not a certificate of the other."""
    one, other = base.job.preprocess.crop, new.job.preprocess.crop
    if one != other:
        yield f"the certified frame is {one} x {one} pixels in {base.run_id}, {other} x {other} in {new.run_id}"
    before, after = (_masked_threat(run.job.ablation) for run in (base, new))
    if before != after:
        yield f"{base.run_id} {_in_words(before)}, {new.run_id} {_in_words(after)}"


def _masked_threat(ablation: Ablation) -> str | None:
    """What masks were made for; None for columns, rows and blocks, which answer for any patch."""
    return ablation.threat_text if isinstance(ablation, MaskAblation) else None


def _in_words(threat: str | None) -> str:
    return "certifies by a majority of votes" if threat is None else f"certifies by masks against {threat}"


def _unfinished(runs: Iterable[Run], complete: Iterable[bool]) -> Iterator[str]:
    for run, is_complete in zip(runs, complete, strict=False):  # a run may be compared with itself
        if not is_complete:
            missing = len(run.missing())
            what = f"lacks {missing} of {len(run.tasks)} files" if missing else "has no _SUCCESS"
            yield f"{run.url} {what}"


def _reason_of(key: str) -> Reason | None:
    return next((reason for prefix, reason in _KEYS.items() if key == prefix or key.startswith(f"{prefix}.")), None)
