"""A job holds only values that fit each other, and each mistake is one line with key, value and remedy."""

import re

import pytest
import yaml

from smoothcert.manifests.ablation import WindowAblation, ablation_of
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage, load_job, storage_of
from smoothcert.pipeline.commands.certify import EXAMPLES


@pytest.mark.parametrize("name", ["demo", "cifar10-test", "imagenet1k-val"])
def test_the_examples_are_valid(name):
    """The example jobs load."""
    assert load_job(EXAMPLES / f"{name}.yaml").patches


def test_one_pattern_to_ignore_is_a_list_of_one(job_file):
    """`ignore` is a list of patterns; without one it is empty."""
    assert load_job(job_file).model.ignore == ()
    assert load_job(job_file, ["model.ignore=criterion.*"]).model.ignore == ("criterion.*",)
    assert load_job(job_file, ['model.ignore=["criterion.*", "ema.*"]']).model.ignore == ("criterion.*", "ema.*")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("ablation.stride=0", r"ablation\.stride: 0 .*greater than or equal to 1"),
        ("ablation.stride=true", r"ablation\.stride: True .*valid integer"),
        ("ablation.size=300", r"ablation\.size: 300 .*224 x 224"),
        ("ablation.kind=stripe", r"ablation\.kind: 'stripe' .*'column', 'row', 'block' or 'mask'"),
        ("patches=[32, 500]", r"patches: 500 .*224 x 224"),
        ("preprocess.resize=100", r"preprocess\.resize: 100 .*at least 224"),
        ("preprocess.std=[1, 0, 1]", r"preprocess\.std: .*above 0"),
        ("preprocess.mean=[123.7, 116.3, 103.5]", r"preprocess\.mean: \[123\.7, .*divide it by 255"),
        ("preprocess.std=[58.4, 57.1, 57.4]", r"preprocess\.std: \[58\.4, .*divide it by 255"),
        ("model.classes=1", r"model\.classes: 1 .*greater than or equal to 2"),
        ("preprocess={resize: null, squash: true}", r"preprocess: squash: true .*set it, or leave squash out"),
        ("model.class_names=[cat, dog]", r"model: class_names has 2 names for \d+ classes; give one each"),
        ("model.options={num_classes: 3}", r"model\.options: .*remove them"),
        ("execution.actors=many", r"execution\.actors: 'many' .*integer"),
        ("images.shards=[]", r"images\.shards: .*empty"),
        ("output=", r"output: None .*valid string"),
    ],
)
def test_error_names_key_value_and_remedy(job_file, override, says):
    """Key path, value and remedy, in one line."""
    with pytest.raises(RequestError) as error:
        load_job(job_file, [override])
    assert re.search(says, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


def test_a_job_survives_its_own_dump(job_file):
    """run.json keeps a job that loads again as the same job."""
    job = load_job(job_file)
    assert type(job).model_validate(yaml.safe_load(yaml.safe_dump(job.model_dump(mode="json")))) == job


def test_anonymous_storage_has_no_profile_and_nobody_to_pay():
    """`--storage` takes the keys that `storage` of a job has, and refuses what contradicts `anonymous`."""
    assert storage_of(["anonymous=true", "region=r"]) == Storage(anonymous=True, region="r")
    assert storage_of(["endpoint_url=http://a", "requester_pays=true"]).requester_pays
    assert storage_of([]) == Storage()
    for other in ("profile=p", "requester_pays=true"):
        with pytest.raises(RequestError, match=r"--storage: .*anonymous"):
            storage_of(["anonymous=true", other])
    with pytest.raises(RequestError, match="--storage: anonymus: unknown key; did you mean anonymous"):
        storage_of(["anonymus=true"])
    with pytest.raises(RequestError, match=r"--storage anonymous: expected .* such as anonymous=true"):
        storage_of(["anonymous"])


def test_an_ablation_is_given_as_keys_of_a_job_file():
    """Or as that of a job."""
    ablation = WindowAblation(kind="block", size=5, stride=4, edges="inside")
    assert ablation_of(ablation.model_dump()) == ablation_of(ablation) == ablation
    assert ablation_of({"kind": "row", "size": 3}) == WindowAblation(kind="row", size=3)


@pytest.mark.parametrize(
    ("ablation", "says"),
    [
        ({"kind": "colum", "size": 4}, "ablation.kind: 'colum' should be 'column', 'row', 'block' or 'mask'"),
        ({"kind": "column"}, "ablation.size: missing; add it"),
        ({"kind": "column", "size": 4, "strid": 2}, "ablation.strid: unknown key; did you mean ablation.stride?"),
        ({"kind": "column", "size": 0}, "ablation.size: 0 should be greater than or equal to 1"),
        ("column", "ablation: 'column' should be a valid dictionary"),
    ],
)
def test_a_wrong_ablation_is_one_line(ablation, says):
    """As in a job file."""
    with pytest.raises(RequestError, match=f"^{re.escape(says)}[^\\n]*$"):
        ablation_of(ablation)
