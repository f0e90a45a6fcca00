"""A training file holds only what fits, says what determines the weights, and each mistake is one line."""

import re

import pytest
import yaml

from smoothcert.manifests.ablation import WindowAblation, ablation_of
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.identity import differences
from smoothcert.manifests.shards import Shard
from smoothcert.manifests.training import Training, load_training
from smoothcert.pipeline.commands.certify import EXAMPLES
from tests.helpers.trainings import write_training


@pytest.fixture
def training_file(tmp_path):
    """A valid training file with relative paths."""
    return write_training(tmp_path, validation={"images": {"shards": "held-out"}})


def test_the_example_is_valid():
    """The example trains for the ablations that the example job certifies."""
    training = load_training(EXAMPLES / "cifar10-train.yaml")
    job = yaml.safe_load((EXAMPLES / "cifar10-test.yaml").read_text())
    assert training.validated_ablation == ablation_of(job["ablation"])
    assert training.model.options == job["model"]["options"]


def test_paths_start_from_the_file(training_file, tmp_path):
    """Relative paths of both sets of images and of the output start from the file's folder."""
    training = load_training(training_file)
    assert training.images.shards == str(tmp_path / "tars")
    assert training.validation.images.shards == str(tmp_path / "held-out")
    assert training.url == str(tmp_path / "trained" / "small")


def test_one_ablation_is_a_list_of_one(training_file):
    """Both forms load; the first is the one that is validated, unless another is named."""
    mixture = ["ablation=[{kind: row, size: 2, weight: 3}, {kind: block, size: 5}]"]
    training = load_training(training_file, mixture)
    assert [(ablation.kind, ablation.weight) for ablation in training.ablation] == [("row", 3), ("block", 1)]
    assert training.validated_ablation == WindowAblation(kind="row", size=2)
    other = load_training(training_file, [*mixture, "validation.ablation={kind: column, size: 4, stride: 2}"])
    assert other.validated_ablation == WindowAblation(kind="column", size=4, stride=2)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("epoch=4", r"epoch: unknown key; did you mean epochs\?"),
        ("optimizer.learning_rate=1", r"optimizer\.learning_rate: unknown key; known here: name, lr, "),
        ("validation.image.shards=x", r"validation\.image: unknown key; did you mean .*image"),
        ("ablation={kind: column, sise: 4, size: 4}", r"ablation\.sise: unknown key; did you mean ablation\.size\?"),
        ("ablation=[]", r"ablation: \[\] is empty"),
        ("ablation=[{kind: column}]", r"ablation\.size: missing; add it \(Width of the column"),
        ("ablation={kind: column, size: 17}", r"ablation\.size: 17 too large: the image is 16 x 16"),
        ("validation.ablation={kind: row, size: 17}", r"ablation\.size: 17 too large"),
        ("whole_share=1", r"whole_share: 1 .*less than 1"),
        ("name=a/b", r"name: 'a/b' names a folder"),
        ("images.label=null", r"images\.label: null leaves nothing to learn"),
        ("execution.workers=3", r"batch_size: 4 is not a multiple of execution\.workers \(3\)"),
        ("optimizer.lr=0", r"optimizer\.lr: 0 .*greater than 0"),
        ("precision=float16", r"precision: 'float16' .*'float32' or 'bfloat16'"),
        ("schedule.name=steps", r"schedule\.name: 'steps' .*'step', 'cosine' or 'constant'"),
        ("seed=-1", r"seed: -1 .*greater than or equal to 0"),
        ("model.options={pretrained: true}", r"model\.options: .*'pretrained'.*remove them here"),
        ("preprocess={resize: 15, crop: 16}", r"preprocess\.resize: 15 leaves nothing to crop"),
        ("preprocess.decoder=nvjpeg", r"preprocess\.decoder: nvjpeg is for jobs; .* leave decoder out"),
        ("validation.patches=[2, 400]", r"validation\.patches: 400 too large: the image is 16 x 16"),
        ("augmentation.scale=[0.9, 0.1]", r"augmentation\.scale: .*the smaller first"),
        ("regularisation.patch_sensitivity={share: 1}", r"patch_sensitivity\.share: 1 .*less than 1"),
        ("adversarial={}", r"adversarial\.eps: missing; add it"),
        ("adversarial={eps: a lot}", r"adversarial\.eps: 'a lot' should be a number, or a fraction such as 4/255"),
        ("adversarial={eps: 4/0}", r"adversarial\.eps: '4/0' should be a number, or a fraction"),
        ("adversarial={eps: 0/255}", r"adversarial\.eps: .*greater than 0"),
        ("adversarial={eps: 4/255, step: 1}", r"adversarial\.step: unknown key; did you mean adversarial\.steps\?"),
        ("adversarial={eps: 4/255}", r"adversarial\.warmup_epochs: 10 of 2 epochs leave none .* lower it"),
    ],
)
def test_error_names_key_value_and_remedy(training_file, override, says):
    """Key path, value and remedy, in one line."""
    with pytest.raises(RequestError) as error:
        load_training(training_file, [override])
    assert re.search(says, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["ablation={kind: cutout, side: 4}"],
            r"ablation: cutout leaves no tokens out; set model\.masked_tokens to keep",
        ),
        (
            ["ablation=[{kind: column, size: 4}, {kind: mask, threat: 4, per_axis: 3}]"],
            r"ablation: hidden pixels become black or mean; give all ablations the same fill",
        ),
        (["ablation={kind: mask, threat: 4, per_axis: 3, early_exit: true}"], r"ablation\.early_exit: .*remove it"),
        (["ablation={kind: mask, threat: 40, per_axis: 3}"], r"ablation\.threat: 40 too large: the image is 16 x 16"),
    ],
)
def test_ablations_that_no_network_can_learn_under_are_refused(training_file, overrides, says):
    """Cutout needs every token, one fill holds for all, and what does not fit the image is said."""
    with pytest.raises(RequestError, match=says):
        load_training(training_file, overrides)


def test_a_network_that_learns_under_cutout_is_validated_under_what_votes(training_file):
    """That is the first ablation that is no cutout, or else the whole image."""
    cutout, mask = "{kind: cutout, side: 4}", "{kind: mask, threat: 4, per_axis: 3, weight: 2}"
    keep = "model.masked_tokens=keep"
    both = load_training(training_file, [f"ablation=[{cutout}, {mask}]", keep])
    assert both.validated_ablation == ablation_of({"kind": "mask", "threat": 4, "per_axis": 3})
    alone = load_training(training_file, [f"ablation={cutout}", keep])
    assert alone.validated_ablation == WindowAblation(kind="column", size=16, stride=16)


def test_settings_that_contradict_each_other_are_refused(training_file):
    """Each says which two do not fit, and what to do."""
    with pytest.raises(RequestError, match=r"cache: true keeps only the certified crop.* use cache: false"):
        load_training(training_file, ["augmentation.crop=resized", "preprocess.resize=20"])
    with pytest.raises(RequestError, match=r"images\.limit: needs cache: true"):
        load_training(training_file, ["images.limit=3", "cache=false"])
    with pytest.raises(RequestError, match=r"whole_share: ablation: null shows all images whole; leave one"):
        load_training(training_file, ["ablation=null", "whole_share=0.5"])
    with pytest.raises(RequestError, match=r"adversarial: does not go together with regularisation\.patch_sensitivity"):
        both = ["adversarial={eps: 4/255, warmup_epochs: 0}", "regularisation.patch_sensitivity={}"]
        load_training(training_file, both)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("optimizer.lr=0.2", ["optimizer.lr"]),
        ("epochs=3", ["epochs"]),
        ("ablation={kind: column, size: 4}", ["ablation"]),
        ("images.label=json:class", ["images.label"]),
        ("ema=0.9", ["ema"]),
        ("ablation=null", ["ablation"]),
        ("regularisation.patch_sensitivity={}", ["regularisation"]),
        ("adversarial={eps: 4/255, warmup_epochs: 1}", ["adversarial"]),
        ("output=elsewhere", []),
        ("images.shards=elsewhere", []),
        ("execution.workers=2", []),
        ("validation.every_epochs=1", []),
        ("checkpoint_every_epochs=2", []),
    ],
)
def test_identity_changes_with_what_determines_the_weights(training_file, override, changed):
    """Places, numbers of processes and progress messages do not; every other key does, and is named."""
    shards = [Shard("a.tar", "anywhere/a.tar", 100, "")]
    then = load_training(training_file).identity(shards, None)
    now = load_training(training_file, [override]).identity(shards, None)
    assert differences(then, now) == changed


def test_new_keys_leave_the_identity_of_older_trainings(training_file):
    """A training that was begun before they were added continues."""
    now = load_training(training_file).identity([Shard("a.tar", "anywhere/a.tar", 100, "")], None)
    keys = ["ablation", "augmentation", "batch_size", "cache", "epochs", "images", "model", "name", "optimizer"]
    assert sorted(now) == [*keys, "preprocess"]
    assert [sorted(ablation) for ablation in now["ablation"]] == [["kind", "size"]]


def test_a_length_is_a_number_or_a_fraction(training_file):
    """YAML reads 4/255 as text."""
    for written, eps in {"4/255": 4 / 255, "0.5": 0.5, "1e-2": 0.01, "'0.25'": 0.25}.items():
        training = load_training(training_file, [f"adversarial={{eps: {written}, warmup_epochs: 0}}"])
        assert training.adversarial.eps == pytest.approx(eps, abs=1e-12)


def test_identity_changes_with_tars_and_starting_weights(training_file):
    """It holds name and size of each tar, and the digest of the checkpoint."""
    training = load_training(training_file)
    then = training.identity([Shard("a.tar", "x/a.tar", 100, "")], None)
    assert differences(then, training.identity([Shard("a.tar", "y/a.tar", 101, "")], "f00")) == [
        "images.shards",
        "model.checkpoint",
    ]


def test_a_training_survives_its_own_dump(training_file):
    """training.json keeps a training that loads again as the same one; training processes get it in that form."""
    training = load_training(training_file)
    assert Training.model_validate(training.model_dump(mode="json")) == training
