"""Sensitivity against a plain loop over images, draws and tokens, with timm's own attention and dropping."""

import math

import pyarrow as pa
import pytest
import timm
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.manifests.studies import Sensitivity
from smoothcert.workers.studies.sensitivity import KIND, WAYS, SensitivityMeasures
from smoothcert.workers.votes.format import Format
from tests.helpers.studied import CLASSES, CPU, CROP, FORMAT, PREPROCESS, images, one_of, vit

SETTINGS = Sensitivity(share=0.2, draws=3)  # 3 of 16 tokens


def measures_of(network, settings=SETTINGS, preprocess=PREPROCESS, format=FORMAT):
    return SensitivityMeasures(network, preprocess=preprocess, format=format, settings=settings, device=CPU)


class Averages(torch.nn.Module):
    """A classifier whose logits are weighted means of the pixels, so that every change can be worked out by hand."""

    def __init__(self, weights_KCWW):
        super().__init__()
        self.weights_KCWW = weights_KCWW

    def forward(self, images):
        return torch.einsum("scij,kcij->sk", images, self.weights_KCWW)


class Watched(torch.nn.Module):
    """Remembers the images that it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        return images.new_zeros(len(images), CLASSES)


@pytest.mark.parametrize("keep_hidden", [True, False])
def test_a_network_that_ignores_its_input_has_no_sensitivity(keep_hidden):
    network = vit()
    with torch.no_grad():
        network.head.weight.zero_()
        for block in network.blocks:
            block.attn.qkv.weight.zero_()
    for row in measures_of(network, format=Format("a network", CLASSES, keep_hidden)).measure(images()):
        for way in WAYS:
            assert row[f"{way}_changed"] == row[f"{way}_margin_change"] == 0
            if way != "hidden" or keep_hidden:
                assert row[f"{way}_drift"] == pytest.approx([0, 0], abs=1e-6)
        assert row["tokens"] == [0] * 16


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "qk_norm": True}),
        ("vit_tiny_patch16_224", {"reg_tokens": 2, "no_embed_class": True, "dynamic_img_size": True}),
        ("deit_tiny_distilled_patch16_224", {}),
    ],
)
def test_hiding_equals_masking_the_tokens_in_attention(architecture, options):
    """Tokens that are left out: the logits and the attention are those of all tokens with a mask.
    Oracle: timm's forward with `attn_mask`, and attention from timm's unfused path.
    """
    network = vit(architecture, **options)
    measures, studied = measures_of(network), images(1)
    (row,) = measures.measure(studied)
    chosen_RT = measures._draw(studied.seeds[0]).chosen
    assert chosen_RT.sum(1).tolist() == [3, 3, 3]
    pixels = (studied.pixels.permute(0, 3, 1, 2) / 255 - MEAN) / STD
    clean, attention = traced(network, pixels, None)
    top, p = int(clean.argmax()), network.num_prefix_tokens
    changes, changed, drifts = [], [], []
    for chosen_T in chosen_RT:
        kept_N = torch.cat([torch.ones(p, dtype=torch.bool), ~chosen_T])
        logits, masked = traced(network, pixels, kept_N, average_over=kept_N[p:])
        changes.append(margin(clean, top) - margin(logits, top))
        changed.append(float(int(logits.argmax()) != top))
        drifts.append([distance(one, other, kept_N) for one, other in zip(attention, masked, strict=True)])
    assert row["hidden_margin_change"] == pytest.approx(sum(changes) / 3, abs=2e-4)
    assert row["hidden_changed"] == pytest.approx(sum(changed) / 3)
    assert row["hidden_drift"] == pytest.approx(torch.tensor(drifts).mean(0).tolist(), abs=1e-4)
    assert min(row["hidden_drift"]) > 0.01


def test_occluding_and_corrupting_change_the_chosen_tokens_alone():
    """The network sees the clean image, then the draws of each way, then each token alone under noise."""
    network = Watched()
    settings = SETTINGS.model_copy(update={"share": 0.1, "noise": 0.3})
    measures, studied = measures_of(network, settings), images(1)
    network.seen.clear()  # of the try-out
    measures.measure(studied)
    cells = 8  # a side: 16 pixels are 8 cells of 2 pixels
    assert measures.cells == cells**2
    clean, occluded, corrupted, hidden, tokens = network.seen[0][0], *network.seen[1:4], torch.cat(network.seen[4:])
    for draw in range(3):
        where = cells_that_differ(clean, occluded[draw], cells)
        assert where.sum() == round(0.1 * cells**2)
        assert (where == cells_that_differ(clean, corrupted[draw], cells)).all()
        assert (where == cells_that_differ(clean, hidden[draw], cells)).all()
        pixels = where.repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert 0 <= occluded[draw][:, pixels].min() < 0.1 < 0.9 < occluded[draw][:, pixels].max() < 1
        torch.testing.assert_close((hidden[draw] * STD + MEAN)[:, pixels], torch.zeros(3, int(pixels.sum())))
        black_to_white = (corrupted[draw] * STD + MEAN)[:, pixels]
        assert black_to_white.min() >= -1e-6 and black_to_white.max() <= 1 + 1e-6
    assert len({occluded[draw].sum() for draw in range(3)}) == 3
    assert len(tokens) == cells**2
    for number, image in enumerate(tokens):
        assert torch.nonzero(cells_that_differ(clean, image, cells).flatten()).flatten().tolist() == [number]


def test_noise_that_corrupts_has_the_strength_of_the_settings():
    network = Watched()
    gray = images(1)._replace(pixels=torch.full((1, CROP, CROP, 3), 128, dtype=torch.uint8))
    measures = measures_of(network, Sensitivity(share=0.9, draws=20, noise=0.05, by_token=False))
    network.seen.clear()
    measures.measure(gray)
    clean, corrupted = network.seen[0], network.seen[2]
    noise = ((corrupted - clean) * STD)[(corrupted != clean)]
    assert float(noise.std()) == pytest.approx(0.05, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0, abs=0.002)


def test_changes_of_a_linear_network_are_those_worked_out_by_hand():
    weights = torch.randn(CLASSES, 3, CROP, CROP, generator=torch.Generator().manual_seed(1))
    measures, studied = measures_of(Averages(weights)), images(1)
    (row,) = measures.measure(studied)
    draws = measures._draw(studied.seeds[0])
    clean = ((studied.pixels.permute(0, 3, 1, 2) / 255 - MEAN) / STD)[0]
    top = int(logits_of(weights, clean).argmax())
    changes, changed = [], []
    for chosen, noise in zip(draws.chosen, draws.noise, strict=True):
        where = chosen.reshape(8, 8).repeat_interleave(2, 0).repeat_interleave(2, 1)
        logits = logits_of(weights, torch.where(where, noise, clean))
        changes.append(margin(logits_of(weights, clean), top) - margin(logits, top))
        changed.append(float(int(logits.argmax()) != top))
    assert row["occluded_margin_change"] == pytest.approx(sum(changes) / 3, abs=1e-3)
    assert row["occluded_changed"] == pytest.approx(sum(changed) / 3)
    for number in (0, 9, 63):
        image = clean.clone()
        i, j = 2 * (number // 8), 2 * (number % 8)
        image[:, i : i + 2, j : j + 2] = draws.alone[:, i : i + 2, j : j + 2]
        expected = margin(logits_of(weights, clean), top) - margin(logits_of(weights, image), top)
        assert row["tokens"][number] == pytest.approx(expected, abs=1e-3)
    assert row["occluded_drift"] is None


@pytest.mark.parametrize("way", ["occluded", "corrupted"])
def test_drift_of_changed_pixels_counts_the_kept_tokens_alone(way):
    network = vit()
    measures, studied = measures_of(network), images(1)
    (row,) = measures.measure(studied)
    draws = measures._draw(studied.seeds[0])
    pixels = (studied.pixels.permute(0, 3, 1, 2) / 255 - MEAN) / STD
    _, attention = traced(network, pixels, None)
    drifts = []
    for draw, chosen in enumerate(draws.chosen):
        where = chosen.reshape(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1)
        noisy = ((pixels * STD + MEAN + 0.1 * draws.added[draw]).clamp(0, 1) - MEAN) / STD
        other = {"occluded": draws.noise[draw][None], "corrupted": noisy}[way]
        _, there = traced(network, torch.where(where, other, pixels), None)
        kept = torch.cat([torch.tensor([True]), ~chosen])
        drifts.append([distance(one, two, kept) for one, two in zip(attention, there, strict=True)])
    assert row[f"{way}_drift"] == pytest.approx(torch.tensor(drifts).mean(0).tolist(), abs=1e-4)


def test_a_row_does_not_depend_on_the_images_beside_it():
    """Exactly the same numbers, alone or together, with a network of fresh seeds or a used one."""
    network, studied = vit(), images(3)
    together = measures_of(network).measure(studied)
    assert [measures_of(network).measure(one_of(studied, n))[0] for n in range(3)] == together


def test_another_seed_gives_another_draw():
    measures, studied = measures_of(vit()), images(1)
    assert measures.measure(studied) != measures.measure(studied._replace(seeds=[1]))


def test_parts_that_fit_memory_give_the_same_row(monkeypatch):
    network, studied = vit(), images(1)
    (whole,) = measures_of(network).measure(studied)
    monkeypatch.setitem(
        __import__("smoothcert.workers.studies.sensitivity", fromlist=["_"])._PIXELS_AT_ONCE, "cpu", 2 * CROP**2
    )
    (parts,) = measures_of(network).measure(studied)
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, abs=1e-4), name


def test_tokens_one_by_one_can_be_left_out():
    (row,) = measures_of(vit(), SETTINGS.model_copy(update={"by_token": False})).measure(images(1))
    (whole,) = measures_of(vit()).measure(images(1))
    assert row == {name: value for name, value in whole.items() if name != "tokens"}


@pytest.mark.parametrize(
    ("architecture", "cells"), [("resnet18", 64), ("xcit_nano_12_p8_224", 4), ("swin_tiny_patch4_window7_224", 16)]
)
def test_networks_without_tokens_are_measured_by_cells(architecture, cells):
    network = timm.create_model(
        architecture, num_classes=CLASSES, **({} if architecture == "resnet18" else {"img_size": CROP})
    ).eval()
    measures = measures_of(network)
    (row,) = measures.measure(images(1))
    assert measures.cells == cells == len(row["tokens"])
    assert [row[f"{way}_drift"] for way in WAYS] == [None] * 3
    assert all(math.isfinite(row[f"{way}_margin_change"]) for way in WAYS)


def test_gray_and_upsampled_images_are_measured():
    preprocess = Preprocess(resize=None, crop=8, upsample=2, mean=(0.5,), std=(0.2,))
    measures = measures_of(vit(in_chans=1), preprocess=preprocess)
    (row,) = measures.measure(images(1, crop=8, channels=1))
    assert len(row["tokens"]) == 16


def test_logits_that_are_not_finite_give_a_row_without_figures():
    network = vit()
    with torch.no_grad():
        network.head.bias[0] = float("nan")
    (row,) = measures_of(network).measure(images(1))
    assert row == {"error": "a logit is not finite"}


def test_rows_have_the_columns_of_the_kind():
    """And they are those that a file holds."""
    (row,) = measures_of(vit()).measure(images(1))
    assert set(row) == set(KIND.columns.names)
    assert pa.Table.from_pylist([row], schema=KIND.columns).to_pylist()[0]["occluded_drift"] == row["occluded_drift"]


def test_the_prediction_is_that_of_the_clean_image():
    network, studied = vit(), images(1)
    (row,) = measures_of(network).measure(studied)
    logits = network((studied.pixels.permute(0, 3, 1, 2) / 255 - MEAN) / STD)[0]
    assert row["prediction"] == int(logits.argmax())
    assert row["margin"] == pytest.approx(margin(logits, row["prediction"]), abs=1e-5)


def test_progress_is_heard_of():
    """A clean pass, three ways of three draws, 16 tokens; the try-out comes before."""
    measures = measures_of(vit())
    before = measures.forwards
    measures.measure(images(2))
    assert measures.forwards - before == 2 * (1 + 3 * 3 + 16)


def test_a_share_that_leaves_no_token_is_refused():
    with pytest.raises(RequestError, match=r"share: 0.99 of 16 tokens leaves none as it is; use a smaller share"):
        measures_of(vit(), Sensitivity(share=0.99))


def test_a_network_that_takes_no_such_image_is_refused_in_one_line():
    with pytest.raises(RequestError, match=r"model: a network cannot classify an image of 32 x 32 pixels") as refused:
        measures_of(vit(), preprocess=Preprocess(resize=None, crop=32))
    assert "\n" not in str(refused.value)


MEAN, STD = (torch.tensor(values)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))


def logits_of(weights, image):
    return torch.einsum("cij,kcij->k", image, weights)


def margin(logits_K, top):
    logits_K = logits_K.detach()
    return float(logits_K[top] - max(value for number, value in enumerate(logits_K) if number != top))


def cells_that_differ(one, other, cells):
    return (one != other).any(0).reshape(cells, CROP // cells, cells, CROP // cells).any(3).any(1)


def distance(one_hNN, other_hNN, kept_N):
    """Mean total variation distance of the rows of kept tokens."""
    return float((one_hNN - other_hNN)[:, kept_N].abs().sum(-1).mean() / 2)


def traced(network, pixels, kept_N, average_over=None):
    """Logits [K] and each layer's attention [h, N, N], computed without timm's hooks: timm's unfused attention, whose
    dropout of attention weights sees them. A mask hides tokens from all others.
    """
    weights, tokens = [], network._pos_embed(network.patch_embed(pixels))
    mask = None if kept_N is None else torch.zeros(len(kept_N), len(kept_N)).masked_fill(~kept_N, -torch.inf)
    with torch.no_grad():
        for block in network.blocks:
            block.attn.fused_attn = False
            hook = block.attn.attn_drop.register_forward_hook(lambda _m, inputs, _o: weights.append(inputs[0][0]))
            tokens = block(tokens, attn_mask=mask)
            block.attn.fused_attn = True
            hook.remove()
        if kept_N is not None:
            tokens = tokens[:, kept_N]
        return network.forward_head(network.norm(tokens))[0], weights
