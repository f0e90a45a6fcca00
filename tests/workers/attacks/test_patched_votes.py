"""The module that attacks attack, against the engine that votes and a plain loop over whole images."""

import copy

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from smoothcert.manifests.ablation import WindowAblation, ablation_of
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.attacks.patched_votes import PatchedVotes, Targets
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.networks.classifiers import has_tokens
from smoothcert.workers.votes.differentiable import differentiable
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.voters import smooth
from tests.helpers.masks import double_masking
from tests.helpers.studied import CLASSES, CPU, CROP, PREPROCESS, images, vit

KINDS = {
    "column": WindowAblation(kind="column", size=3, stride=2),
    "row": WindowAblation(kind="row", size=5),
    "block": WindowAblation(kind="block", size=6, stride=5),
    "mask": ablation_of({"kind": "mask", "threat": 6, "per_axis": 2}),
    "black mask": ablation_of({"kind": "mask", "threat": 6, "per_axis": 2, "fill": "black"}),
}
PATCH = (3, 5)
PLACES = np.array([[0, 0], [12, 11], [5, 7], [13, 2]])


def resnet():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=CLASSES).eval()


def setting(kind, network=None, *, keep_hidden=False, preprocess=PREPROCESS):
    """The engine that votes, the differentiable twin, and four images with their votes and places.

    Votes that a patch does not touch are split among the classes, so that patches change predictions.
    """
    network = vit(spread=1.0) if network is None else network
    ablations = ablations_of(KINDS[kind], CROP, CROP)
    keep_hidden = keep_hidden or not has_tokens(network)
    twin = differentiable(copy.deepcopy(network), [ablations], preprocess, keep_hidden=keep_hidden).eval()
    engine = smooth(
        network, ablations, preprocess=preprocess, format=Format("one", CLASSES, keep_hidden=keep_hidden), device=CPU
    )
    pixels = images(4).pixels
    targets = Targets.of(pixels, engine.votes(pixels).classes, PLACES, PATCH, ablations)
    split = torch.arange(ablations.num_ablations) % CLASSES
    return engine, twin, targets._replace(votes=torch.where(targets.touched, targets.votes, split)), ablations


def prediction_of(votes, ablations):
    """[images]: counted by hand, or by double masking as its paper prints it."""
    if isinstance(ablations, MaskSet):
        return torch.tensor([double_masking(own, ablations.unions.tolist()) for own in votes.tolist()])
    return F.one_hot(votes, CLASSES).sum(dim=1).argmax(dim=1)


def predicted(engine, targets, patches, ablations):
    """What the engine's votes on the whole patched images give, with the stored votes where the patch is not."""
    voted = engine.votes(pasted_by_hand(targets.images, patches)).classes
    return prediction_of(torch.where(targets.touched, voted, targets.votes), ablations)


def module_of(twin, targets, ablations, **options):
    predictions, kind = prediction_of(targets.votes, ablations), "mask" if isinstance(ablations, MaskSet) else "row"
    family = family_of(KINDS[kind])
    at_once = {"ablations": ablations, "family": family, "classes": CLASSES, "at_once": 5}
    return PatchedVotes(twin, targets, predictions, **at_once, **options), predictions


def pasted_by_hand(pixels, patches):
    """Patches [n, channels, h, w] uint8 on images."""
    found = pixels.clone()
    for image, (top, left), patch in zip(found, PLACES.tolist(), patches, strict=True):
        image[top : top + PATCH[0], left : left + PATCH[1]] = patch.permute(1, 2, 0)
    return found


@pytest.mark.parametrize("keep_hidden", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_falls_exactly_when_the_engine_votes_otherwise(kind, keep_hidden):
    """Oracle: the engine votes on the whole image with the patch, every ablation anew."""
    engine, twin, targets, ablations = setting(kind, keep_hidden=keep_hidden)
    both = set()
    for seed in range(40):
        module, predictions = module_of(twin, targets, ablations)
        if seed % 2:  # as if an earlier patch had changed them
            predictions[:] = torch.randint(CLASSES, (4,), generator=torch.Generator().manual_seed(seed))
        patches = torch.rand(4, 3, *PATCH, generator=torch.Generator().manual_seed(seed))
        module(patches)
        rounded = (patches * 255).round().to(torch.uint8)
        expected = predicted(engine, targets, rounded, ablations) != predictions
        assert module.fell.tolist() == expected.tolist()
        assert torch.equal(module.patches[module.fell], rounded[module.fell])
        both |= set(expected.tolist())
    assert both == {False, True}


@pytest.mark.parametrize("kind", ["column", "mask"])
def test_it_works_with_a_network_without_tokens(kind):
    engine, twin, targets, ablations = setting(kind, resnet())
    module, predictions = module_of(twin, targets, ablations)
    patches = torch.zeros(4, 3, *PATCH)
    module(patches)
    expected = predicted(engine, targets, patches.to(torch.uint8), ablations) != predictions
    assert module.fell.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["column", "black mask"])
def test_the_gradient_is_that_of_the_softmaxes_of_the_touched_ablations(kind):
    """Oracle: timm's own forward on each ablated image, kept whole, one at a time; of unions of masks none counts."""
    network = vit()  # with small weights, or the softmaxes have no gradient
    _, twin, targets, ablations = setting(kind, copy.deepcopy(network), keep_hidden=True)
    module, predictions = module_of(twin, targets, ablations)
    start = targets.own_patches()
    patches = start.clone().requires_grad_()
    scores = module(patches)
    standing = ~module.fell
    assert standing.all()  # they are the images' own pixels
    (gradient,) = torch.autograd.grad(scores.gather(1, predictions[:, None]).sum(), patches)

    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))
    for number, (top, left) in enumerate(PLACES.tolist()):
        patch = start[number].clone().requires_grad_()
        image = targets.images[number].permute(2, 0, 1).float() / 255
        rows, columns = slice(top, top + PATCH[0]), slice(left, left + PATCH[1])
        image = image.clone()
        image[:, rows, columns] = patch
        touched = np.flatnonzero(ablations.touched_at(*PATCH, top, left))
        if isinstance(ablations, MaskSet):
            touched = touched[touched < 4]  # of the 2 x 2 masks
        total = torch.zeros(())
        for ablation in touched:
            visible = torch.from_numpy(ablations.visible(np.array([ablation])))[0]
            logits = network((image * visible - mean)[None] / std)
            total = total + logits.softmax(dim=1)[0, predictions[number]]
        (expected,) = torch.autograd.grad(total * 10 / len(touched), patch)
        torch.testing.assert_close(gradient[number], expected, rtol=1e-3, atol=1e-6)


def test_stored_votes_stand_where_the_patch_does_not_touch():
    """Votes that no engine gave still count there."""
    _, twin, targets, ablations = setting("column")
    made_up = torch.where(targets.touched, targets.votes, torch.full_like(targets.votes, 2))
    module, _ = module_of(twin, targets._replace(votes=made_up), ablations, whole_counts=True)
    with torch.no_grad():
        scores = module(targets.own_patches())
    counts = scores[:, 2].round()
    assert (counts >= (~targets.touched).sum(dim=1)).all()


@pytest.mark.parametrize("kind", ["block", "mask"])
def test_the_scores_rank_as_the_votes_do(kind):
    """Whole counts: the largest score is the prediction, ties included; softmaxes decide nothing.

    The stored votes of masks are such that their rows decide against the majority, before and with the patch.
    """
    _, twin, targets, ablations = setting(kind)
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(60):
        votes = targets.votes
        if kind == "mask":
            made_up = (torch.rand(votes.shape, generator=generator) < 0.05).long()
            rare = torch.randint(CLASSES, (len(votes), 1), generator=generator)
            votes = torch.where(targets.touched, torch.randint(CLASSES, votes.shape, generator=generator), rare)
            votes = (votes + made_up) % CLASSES
        module, predictions = module_of(twin, targets._replace(votes=votes), ablations, whole_counts=True)
        patches = torch.rand(4, 3, *PATCH, generator=generator)
        with torch.no_grad():
            scores = module(patches)
        assert ((scores.argmax(dim=1) != predictions) == module.fell).all()
        others = scores.scatter(1, predictions[:, None], -torch.inf).amax(dim=1)
        assert (scores.gather(1, predictions[:, None])[:, 0] != others).all()  # Square takes 0 for a success
        seen |= set(module.fell.tolist())
    assert seen == {False, True}


def test_a_mask_that_returns_the_prediction_against_the_majority_leads_by_its_softmax():
    """Square has something to follow although the majority has changed already."""
    _, twin, targets, ablations = setting("mask")
    touched = targets.touched[:1]
    own = 1
    # The masks that hide the patch return class 1; whatever the others show, it stays.
    votes = torch.full((1, ablations.num_ablations), own)
    module, predictions = module_of(
        twin, targets.part(torch.tensor([0]))._replace(votes=votes), ablations, whole_counts=True
    )
    assert touched.any()
    assert predictions.tolist() == [own]
    leads = set()
    for seed in range(30):
        with torch.no_grad():
            scores = module(torch.rand(1, 3, *PATCH, generator=torch.Generator().manual_seed(seed)))[0]
        assert not module.fell.any()
        rivals = scores[torch.arange(CLASSES) != own]
        leads.add(float(scores[own] - rivals.max()))
    assert min(leads) >= 0.5
    assert len(leads) > 1


def test_what_fell_is_not_computed_again():
    """Its patch stays the first one; a caller that follows leaves it out."""
    _, twin, targets, ablations = setting("row")
    module, _ = module_of(twin, targets, ablations, whole_counts=True, follow_standing=True)
    patches = torch.rand(4, 3, *PATCH, generator=torch.Generator().manual_seed(1))
    module.fell[1] = True
    module(patches[[0, 2, 3]])
    assert module.forwards.tolist() == [1, 0, 1, 1]
    standing = int((~module.fell).sum())
    with pytest.raises(AssertionError):
        module(torch.rand(standing + 1, 3, *PATCH))


def test_all_that_fell_still_gives_a_gradient():
    """An attack asks for one, whatever happened."""
    _, twin, targets, ablations = setting("row")
    module, predictions = module_of(twin, targets, ablations)
    module.fell[:] = True
    patches = targets.own_patches().requires_grad_()
    scores = module(patches)
    assert (scores.argmax(dim=1) != predictions).all()
    (gradient,) = torch.autograd.grad(scores.sum(), patches)
    assert not gradient.any()
    assert not module.forwards.any()


def test_upsampled_images_are_patched_before_they_are_upsampled():
    preprocess = Preprocess(resize=None, crop=CROP, upsample=2)
    engine, twin, targets, ablations = setting("column", vit(img_size=2 * CROP), preprocess=preprocess)
    module, predictions = module_of(twin, targets, ablations)
    patches = torch.ones(4, 3, *PATCH)
    module(patches)
    white = (patches * 255).to(torch.uint8)
    assert module.fell.tolist() == (predicted(engine, targets, white, ablations) != predictions).tolist()


def test_the_own_patches_are_the_pixels_that_a_patch_would_hide():
    _, _, targets, _ = setting("column")
    own = targets.own_patches()
    torch.testing.assert_close(targets.pasted(own), targets.images.permute(0, 3, 1, 2).float() / 255)
