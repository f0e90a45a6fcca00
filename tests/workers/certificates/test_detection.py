"""Detection by single masks against an attacker who tries everything, with thresholds and tolerances."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Certificate, Claim, RuleName
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.double_masking import (
    DOUBLE_MASKING,
    MaskBallots,
    exact_detection,
    published_detection,
)
from smoothcert.workers.certificates.rules import Answer
from tests.helpers.mask_maps import (
    IMAGES,
    check_slack,
    hiding,
    near,
    one_less,
    one_more,
    some_votes,
    top_and_margin,
    with_masks,
    with_slack,
)
from tests.helpers.masks import (
    HandMasks,
    Votes,
    on_a_grid,
    on_a_line,
)

Detect = Callable[..., Answer]

LOW, HIGH = 0.5, 2.0
DETECTION = {
    "2 masks": (on_a_line(5, 3, [0, 2], 2), 3, [(1, 2), (1, 1)]),
    "4 masks": (on_a_line(7, 4, [0, 1, 2, 3], 4), 3, [(1, 4), (1, 3), (1, 2)]),
    "4 masks on a grid": (on_a_grid(3, 3, 2, [0, 1], 2), 3, [(2, 2), (1, 2), (1, 1)]),
    "5 masks": (on_a_line(8, 4, [0, 1, 2, 3, 4], 4), 3, [(1, 4), (1, 3), (1, 2)]),
    "3 masks, two patches": (on_a_line(4, 2, [0, 1, 2], 2, patches=2), 2, [(1, 2), (1, 1)]),
}
every_detection = pytest.mark.parametrize("image", DETECTION)
every_threshold = pytest.mark.parametrize("alarm_below", [0, LOW, 1.0, HIGH, 3.0])


@cache
def every_state(image: str) -> tuple[Cast, tuple[int, ...]]:
    """All classes of the whole image, all votes of single masks with low and high margins; the shape of the table."""
    masks, classes, _ = DETECTION[image]
    shape = (classes, *(2 * classes,) * masks.num_masks)
    clean, *codes = np.indices(shape).reshape(len(shape), -1)
    votes, margins = np.zeros((2, len(clean), masks.num_ablations))
    votes[:, : masks.num_masks] = np.transpose(codes) % classes
    margins[:, : masks.num_masks] = np.where(np.transpose(codes) < classes, LOW, HIGH)
    return Cast(votes.astype(int), margins.astype(np.float32), None, clean), shape


def check_detection(image: str, rule: Detect, alarm_below: float) -> None:
    """An image is certified iff no attack changes the class of the whole image without an alarm."""
    masks, classes, patches = DETECTION[image]
    cast, shape = every_state(image)
    assert cast.clean is not None
    assert cast.margins is not None
    ballots = MaskBallots.of(cast, masks, classes=classes)
    agrees = cast.votes[:, : masks.num_masks] == cast.clean[:, None]
    silent = (agrees & (cast.margins[:, : masks.num_masks] >= alarm_below)).all(axis=1)
    for patch, count in product(patches, range(1, masks.own.patches + 1)):
        threat = Threat(*patch, count)
        fallen = np.zeros(shape, bool)
        for placed in set(masks.placed(threat).values()):
            touched = [vote for vote in masks.touched(placed) if vote < masks.num_masks]
            reached = silent.reshape(shape).any(axis=tuple(vote + 1 for vote in touched), keepdims=True)
            for clean in range(classes):
                fallen[clean] |= np.delete(reached, clean, axis=0).any(axis=0)
        answer = rule(ballots, masks.covers(threat), alarm_below=alarm_below)
        certified = answer.certified.reshape(shape)
        assert not (certified & fallen).any(), "a certified class is changed silently"
        assert (certified | fallen).all(), "an image is refused, but every attack is noticed"
        assert answer.alarms is not None
        assert (answer.alarms == ~silent).all()
        assert (answer.alarms | answer.certified).all(), "silence implies the certificate"


@every_detection
@every_threshold
def test_no_attack_on_a_certified_image_is_silent_and_one_on_each_other_is(image: str, alarm_below: float) -> None:
    """All classes, all votes, low and high margins, all places, all assignments of what the patch touches."""
    check_detection(image, exact_detection, alarm_below)


@every_detection
@every_threshold
def test_published_detection_certifies_nothing_that_the_exact_rule_does_not(image: str, alarm_below: float) -> None:
    """Without a threshold it is that all masks show the class of the whole image."""
    masks, classes, patches = DETECTION[image]
    cast, _ = every_state(image)
    ballots = MaskBallots.of(cast, masks, classes=classes)
    for patch in patches:
        covers = masks.covers(Threat(*patch))
        published = published_detection(ballots, covers, alarm_below=alarm_below)
        exact = exact_detection(ballots, covers, alarm_below=alarm_below)
        assert (exact.certified | ~published.certified).all()
        assert exact.alarms is not None
        assert published.alarms is not None
        assert (exact.alarms == published.alarms).all()
        assert (published.places == -1).all()
    if not alarm_below:
        assert cast.clean is not None
        assert (published.certified == (ballots.votes == cast.clean[:, None]).all(axis=1)).all()


def above(rule: Detect) -> Detect:
    """The rule with > for >= : a margin that equals the threshold raises an alarm."""
    return lambda ballots, covers, *, alarm_below: rule(
        ballots, covers, alarm_below=np.nextafter(alarm_below, np.inf)
    )._replace(alarms=rule(ballots, covers, alarm_below=alarm_below).alarms)


WRONG_DETECTION = {
    "ignores a mask that hides the patch": with_masks(exact_detection, one_less),
    "believes a mask that does not hide it": with_masks(exact_detection, one_more),
    "ignores the first place": with_masks(exact_detection, lambda sets: sets[1:]),
    "> for >= of the threshold": above(exact_detection),
    "> for >= of the slack": with_slack(exact_detection, lambda answer: answer.slack - 1),
    "one mask may differ": with_slack(published_detection, lambda answer: answer.slack + 1),
    "ignores margins": lambda ballots, covers, **rest: exact_detection(ballots, covers)._replace(
        alarms=exact_detection(ballots, covers, **rest).alarms
    ),
}


@pytest.mark.parametrize("wrong", WRONG_DETECTION)
def test_a_wrong_rule_of_detection_fails(wrong: str) -> None:
    """The attacker finds each of these mistakes."""
    with pytest.raises(AssertionError, match=r"a certified class|an image is"):
        check_detection("4 masks", WRONG_DETECTION[wrong], HIGH)


@given(some_votes(), st.sampled_from([0.0, 0.5, 0.75]), st.sampled_from([0.0, 0.5, 1.0, 1.25]))
@settings(max_examples=150)
def test_slack_of_detection_is_that_of_a_plain_count(
    known: tuple[HandMasks, Threat, int, Cast], tolerance: float, alarm_below: float
) -> None:
    """Masks that hide the weakest place and contradict the best wrong class, less one; masks that do not comply."""
    masks, threat, classes, cast = known
    ballots = MaskBallots.of(cast, masks, classes=classes, tolerance=tolerance)
    covers = masks.covers(threat)
    exact = exact_detection(ballots, covers, alarm_below=alarm_below)
    published = published_detection(ballots, covers, alarm_below=alarm_below)
    assert exact.alarms is not None
    assert cast.margins is not None
    assert cast.clean is not None
    assert cast.clean_margins is not None
    places = hiding(masks, threat)
    singles = range(masks.num_masks)
    for image, (votes, margins) in enumerate(zip(cast.votes.tolist(), cast.margins.tolist(), strict=True)):
        clean = int(cast.clean[image])
        holds = not tolerance or bool(cast.clean_margins[image] >= tolerance)
        any_class = [bool(tolerance) and not margins[one] >= tolerance for one in singles]
        may_be_silent = [not alarm_below or not margins[one] + tolerance < alarm_below for one in singles]

        def may_show(wrong: int, one: int) -> bool:
            return may_be_silent[one] and (any_class[one] or votes[one] == wrong)  # noqa: B023  called here

        rivals = [label for label in range(classes) if label != clean]
        at = {
            place: min(sum(not may_show(wrong, one) for one in masks_there) for wrong in rivals) - 1
            for place, masks_there in places.items()
        }
        check_slack(exact, image, at, holds=holds)
        failing = sum(any(may_show(wrong, one) for wrong in rivals) for one in singles)
        assert published.slack[image] == (-failing if holds else min(-1, -failing))
        silent = all(votes[one] == clean and (not alarm_below or margins[one] >= alarm_below) for one in singles)
        assert exact.alarms[image] == (not silent)


@pytest.mark.parametrize("alarm_below", [0.0, 1.0])
def test_a_tolerance_allows_for_other_rounding_of_detection(alarm_below: float) -> None:
    """Logits that are off by less than half the tolerance: the class of the whole image cannot change silently."""
    masks, classes, _ = DETECTION["4 masks"]
    random, tolerance = np.random.default_rng(0), 0.4
    shape = (5000, masks.num_ablations, classes)
    logits = random.normal(size=shape) + 2 * np.eye(classes)[random.integers(0, classes, (5000, 1))]
    whole = random.normal(size=(5000, classes)) + 2 * np.eye(classes)[logits.sum(axis=1).argmax(axis=1)]
    (votes, margins), (clean, clean_margins) = top_and_margin(logits), top_and_margin(whole)
    cast = Cast(votes, margins, None, clean, clean_margins)
    ballots = MaskBallots.of(cast, masks, classes=classes, tolerance=tolerance)
    for threat in (Threat(1, 4), Threat(1, 2)):
        certified = exact_detection(ballots, masks.covers(threat), alarm_below=alarm_below).certified
        for _ in range(10):
            other_votes, other_margins = top_and_margin(near(logits, tolerance, random))
            other_clean, _ = top_and_margin(near(whole, tolerance, random))
            assert (other_clean == clean)[certified].all()
            reaches = other_margins >= alarm_below
            for hidden in hiding(masks, threat).values():
                for wrong in range(classes):
                    silent = ((other_votes == wrong) & reaches)[:, hidden].all(axis=1)
                    assert not (silent & (other_clean != wrong))[certified].any()
        assert 0 < certified.sum() < len(certified)


@pytest.mark.parametrize("alarm_below", [0.0, 0.3, 0.5, 1.0])
def test_a_tolerance_and_a_threshold_hold_together(alarm_below: float) -> None:
    """All logits of three masks and of the whole image on a grid, moved to each corner of what the tolerance allows:
    of a certified image no mover and no attacker changes the class without an alarm, by either rule.
    """
    masks, classes, tolerance = on_a_line(5, 3, [0, 1, 2], 3), 3, 0.4
    grid = np.array([logits for logits in product([0, 0.3, 1], repeat=classes) if min(logits) == 0])
    corners = grid[:, None] + 0.499 * tolerance * np.array([*product([-1, 1], repeat=classes)])
    moved, moved_margins = top_and_margin(corners)  # [logits, corners]
    may_show = np.stack(  # [logits, classes]: without an alarm, at some corner
        [((moved == label) & (moved_margins >= alarm_below)).any(axis=1) for label in range(classes)], axis=1
    )
    whole, *single = np.indices((len(grid),) * (1 + masks.num_masks)).reshape(1 + masks.num_masks, -1)
    top, margin = top_and_margin(grid)
    votes, margins = np.zeros((len(whole), masks.num_ablations), int), np.ones((len(whole), masks.num_ablations))
    votes[:, : masks.num_masks], margins[:, : masks.num_masks] = top[np.transpose(single)], margin[np.transpose(single)]
    cast = Cast(votes, margins.astype(np.float32), None, top[whole], margin[whole])
    ballots = MaskBallots.of(cast, masks, classes=classes, tolerance=tolerance)
    shown = may_show[np.transpose(single)]  # [images, masks, classes]
    wrong = np.arange(classes) != top[whole, None]
    for threat in (Threat(1, 3), Threat(1, 2), Threat(1, 1)):
        fallen = (moved[whole] != top[whole, None]).any(axis=1)  # without an attack
        for masks_there in hiding(masks, threat).values():
            fallen |= (shown[:, masks_there].all(axis=1) & wrong).any(axis=1)
        covers = masks.covers(threat)
        for rule in (exact_detection, published_detection):
            certified = rule(ballots, covers, alarm_below=alarm_below).certified
            assert not (certified & fallen).any()
            assert 0 < certified.sum() < len(certified)
            without = MaskBallots.of(cast, masks, classes=classes)
            assert (rule(without, covers, alarm_below=alarm_below).certified & fallen).any(), "no tolerance is needed"
            if alarm_below > 0:  # margins, too, may be larger elsewhere
                forgotten = replace(ballots, tolerance=0.0)
                assert (rule(forgotten, covers, alarm_below=alarm_below).certified & fallen).any()


@pytest.mark.parametrize("clean", [None, np.full(2, -1)])
@pytest.mark.parametrize("rule", ["exact", "published"])
def test_detection_needs_the_classes_of_whole_images(clean: Votes | None, rule: str) -> None:
    """The error names the key of the job."""
    masks = IMAGES["3 masks"][0]
    ballots = MaskBallots.of(Cast(np.zeros((2, 6), int), None, None, clean), masks, classes=2)
    with pytest.raises(RequestError, match=r"^certificate detection: the run has no [^\n]*`clean: true` in the job$"):
        DOUBLE_MASKING.rule(Claim(Certificate.detection, RuleName(rule)))(ballots, masks, Threat(1, 1))


def test_an_image_without_a_class_is_not_certified() -> None:
    """The whole image of one of two has no class: no certificate of detection, and an alarm."""
    masks = IMAGES["3 masks"][0]
    ballots = MaskBallots.of(Cast(np.zeros((2, 6), int), None, None, np.array([0, -1])), masks, classes=2)
    for rule in (exact_detection, published_detection):
        answer = rule(ballots, masks.own_covers())
        assert answer.certified.tolist() == [True, False]
        assert answer.alarms is not None
        assert answer.alarms.tolist() == [False, True]


def test_alarms_by_margins_need_margins() -> None:
    """A threshold without margins is a defect."""
    masks = IMAGES["3 masks"][0]
    ballots = MaskBallots.of(Cast(np.zeros((1, 6), int), None, None, np.zeros(1, int)), masks, classes=2)
    with pytest.raises(ValueError, match="alarms by margins need margins"):
        exact_detection(ballots, masks.own_covers(), alarm_below=0.5)
