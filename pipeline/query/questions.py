"""The questions of `smoothcert query`: a grid of patches, strides, tolerances and claims, checked against the job.

Of a run of masks, the default question is about the patches that the masks were made for.

Not covered: the answers (answering.py).
"""

import math
import re
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from smoothcert.manifests.ablation import Area, MaskAblation, Size, WindowAblation
from smoothcert.manifests.arguments import number, several, whole_number
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import Certificate, Claim, RuleName, Subject
from smoothcert.workers.ablations.threats import Patch, Threat, rectangles
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.runs.job_rules import JobRules


class Question(NamedTuple):
    """Does a claim hold against this many patches?

    Attributes:
        patch: height and width in pixels; or an area, for all rectangles that the masks of the run were made for.
        patches: how many at once.
        stride: of the ablations that vote, in pixels; None for masks.
        tolerance: votes of smaller margins count as touched.
        claim: what is claimed; by default, that the prediction cannot change.
    """

    patch: Size | Area
    patches: int
    stride: int | None
    tolerance: float
    claim: Claim = Claim()

    def attacked_size(self, job: Job) -> Size | None:
        """The size of the patch if attacks on a run ask the same, else None.

        They try one patch, against all votes, the prediction and the exact rule.
        """
        is_same = self[1:] == (1, own_stride(job), 0.0, Claim())
        return self.patch if is_same and not isinstance(self.patch, Area) else None


def parse_patches(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Heights and widths of texts such as `32`, `16x48` and `1..64`.

    Raises:
        RequestError: a text is none of these.
    """
    return [patch for text in texts for patch in _parse_patch(text)]


def _parse_patch(text: str) -> list[tuple[int, int]]:
    if one := re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text, re.ASCII):
        return [(int(one[1]), int(one[2] or one[1]))]
    # Few digits: sides that do not fit the image are refused one by one, later.
    if several := re.fullmatch(r"(\d{1,4})\.\.(\d{1,4})(?:\.\.(\d{1,4}))?", text, re.ASCII):
        first, last, step = int(several[1]), int(several[2]), int(several[3] or 1)
        if first <= last and step:
            return [(side, side) for side in range(first, last + 1, step)]
    raise RequestError(
        f"--patch {text}: expected a side such as 32, HEIGHTxWIDTH such as 16x48, sides such as 1..64, or every third "
        "of these, 1..64..3, in pixels"
    )


def questions_of(
    job: Job,
    *,
    patches: Patch | Sequence[Patch] = (),
    counts: int | Sequence[int] = (),
    strides: int | Sequence[int] = (),
    tolerances: float | Sequence[float] = (),
    certificate: str | Sequence[str] = (),
    rules: str | Sequence[str] = (),
    alarm_below: float | Sequence[float] = (),
    top: int | Sequence[int] = (),
    of: str | Sequence[str] = (),
) -> list[Question]:
    """Every combination of the values; a single value is one.

    By default: the job's patches, one at a time, or the threat of its masks; the job's stride; no tolerance; recovery,
    by the first rule of the job's family; and the prediction against every rival.

    Raises:
        RequestError: no patch, a patch that does not fit, a stride or a claim for which the votes have no answer, or a
            value that is no number.
    """
    claims = _claims_of(
        job,
        certificates=several(certificate),
        rules=several(rules),
        thresholds=several(alarm_below),
        tops=several(top),
        subjects=several(of),
    )
    margins = [number("--tolerance", tolerance) for tolerance in several(tolerances)] or [0.0]
    if endless := [tolerance for tolerance in margins if not 0 <= tolerance < math.inf]:
        raise RequestError(f"--tolerance {endless[0]}: must be a finite number from 0 on")
    threats = [*product(_sizes(job, rectangles(patches)), _counts(job, several(counts)))]
    for patch, count in threats:
        if isinstance(job.ablation, MaskAblation) and not isinstance(patch, Area):
            _refuse(job, Threat(*patch, count))
    grid = product(threats, _strides(job, several(strides)), margins, claims)
    return [Question(patch, count, stride, tolerance, claim) for (patch, count), stride, tolerance, claim in grid]


def _refuse(job: Job, threat: Threat) -> None:
    """Refuse patches that no mask hides somewhere, and say what to type."""
    rules = JobRules(job)
    try:
        rules.refuse(threat)
    except RequestError as error:
        side = rules.longest(lambda side: Threat(side, side, threat.patches))
        raise RequestError(f"{error}; --patch 1..{side} asks for all squares that it answers") from None


def _sizes(job: Job, patches: Sequence[Size]) -> Sequence[Size | Area]:
    crop = job.preprocess.crop
    if not patches and isinstance(job.ablation, MaskAblation):
        return [job.ablation.threat]
    sizes = patches or rectangles(job.patches)
    if not sizes:
        raise RequestError("--patch: name at least one, such as --patch 32; the job has no `patches`")
    if large := [patch for patch in sizes if not (min(patch) >= 1 and max(patch) <= crop)]:
        raise RequestError(f"--patch {large[0][0]}x{large[0][1]}: must be 1x1 to {crop}x{crop}, the image")
    return sizes


def _counts(job: Job, counts: Sequence[Any]) -> list[int]:
    crop, whole = job.preprocess.crop, [whole_number("--patches", count) for count in counts]
    if many := [count for count in whole if not 1 <= count <= crop**2]:
        raise RequestError(f"--patches {many[0]}: must be 1 to {crop**2}, the pixels of the image")
    if not isinstance(job.ablation, MaskAblation):
        return whole or [1]
    own = job.ablation.threat_patches
    if many := [count for count in whole if count > own]:
        raise RequestError(
            f"--patches {many[0]}: the masks of this run were made for {own} at once; ask for no more, or certify with "
            "a larger ablation.threat_patches, at most 2"
        )
    return whole or [own]


def _strides(job: Job, strides: Sequence[Any]) -> Sequence[int | None]:
    crop, own, whole = job.preprocess.crop, own_stride(job), [whole_number("--stride", stride) for stride in strides]
    if own is None:
        if whole:
            raise RequestError(f"--stride {whole[0]}: masks have no stride, all of them vote; leave it out")
        return [None]
    if odd := [stride for stride in whole if not 1 <= stride <= max(crop, own) or stride % own]:
        raise RequestError(
            f"--stride {odd[0]}: the run has votes at stride {own}, so name a multiple of {own} up to {crop}, the image"
        )
    return whole or [own]


def own_stride(job: Job) -> int | None:
    """The distance between the offsets that vote, in pixels; None for masks."""
    return job.ablation.stride if isinstance(job.ablation, WindowAblation) else None


def _claims_of(
    job: Job,
    *,
    certificates: Sequence[str],
    rules: Sequence[str],
    thresholds: Sequence[float],
    tops: Sequence[int],
    subjects: Sequence[str],
) -> list[Claim]:
    """Every combination, as for `questions_of`; a threshold of alarms belongs to detection only."""
    family, classes = family_of(job.ablation), job.model.classes
    chosen = _certificates(job, certificates)
    margins = [number("--alarm-below", threshold) for threshold in thresholds]
    whole_tops = [whole_number("--top", top) for top in tops] or [1]
    known = {rule: None for one in chosen for rule in family.rules[one]}
    if unknown := [rule for rule in rules if rule not in known]:
        raise RequestError(f"--rule {unknown[0]}: the run's ablations answer {' and '.join(known)} only; name one")
    if margins and Certificate.detection not in chosen:
        raise RequestError("--alarm-below: only detection raises alarms; add --certificate detection")
    if endless := [margin for margin in margins if not 0 <= margin < math.inf]:
        raise RequestError(f"--alarm-below {endless[0]}: must be a finite margin from 0 on")
    if few := [top for top in whole_tops if not 1 <= top < classes]:
        raise RequestError(
            f"--top {few[0]}: must be 1 to {classes - 1}; all {classes} classes are always among the first {classes}"
        )
    if unknown := [subject for subject in subjects if subject not in [*Subject]]:
        raise RequestError(f"--of {unknown[0]}: must be {' or '.join(Subject)}")
    if Subject.label in subjects and job.images.label is None:
        raise RequestError(
            "--of label: the images of this run have no labels; leave it out to ask about the prediction"
        )
    whose = [*map(Subject, subjects)] or [Subject.prediction]
    claims = [
        Claim(certificate, rule, top, of, margin)
        for certificate in chosen
        for rule in [*map(RuleName, rules)] or family.rules[certificate][:1]
        for top, of in product(whole_tops, whose)
        for margin in (margins if certificate == Certificate.detection and margins else [0.0])
    ]
    if wider := [one for one in claims if one.rule == RuleName.margin and one != Claim(rule=one.rule)]:
        raise RequestError(
            f"--rule margin: answers only --top 1 of the prediction, not --top {wider[0].top} --of {wider[0].of}; "
            "use --rule exact"
        )
    for claim in claims:
        family.rule(claim)  # refuses what the family does not decide
    return claims


def _certificates(job: Job, names: Sequence[str]) -> list[Certificate]:
    if unknown := [name for name in names if name not in [*Certificate]]:
        raise RequestError(f"--certificate {unknown[0]}: must be {' or '.join(Certificate)}")
    chosen = [*map(Certificate, names)] or [Certificate.recovery]
    if Certificate.detection in chosen and Certificate.detection not in family_of(job.ablation).rules:
        raise RequestError(
            f"--certificate detection: ablations of kind {job.ablation.kind} answer recovery only; ask a run of masks"
        )
    if Certificate.detection in chosen and not job.clean:
        raise RequestError(
            "--certificate detection: the run has no classes of whole images; certify again with `clean: true` in the "
            "job"
        )
    return chosen
