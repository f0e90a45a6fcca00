"""A run.json that contradicts itself is named."""

import shutil
from pathlib import Path

import pytest

from smoothcert.pipeline.verify.check import verify
from tests.helpers.damages import Change, Damages
from tests.helpers.finished_runs import edit_json, has

DAMAGES = Damages()


@DAMAGES.add("^run.json run_id: is 0123456789abcdef, the identity gives ", problems=3)
def run_id(run: Path) -> None:
    """Contradicts the identity and both files."""
    edit_json(run / "run.json", lambda record: record.update(run_id="0123456789abcdef"))


@DAMAGES.add("^run.json identity.model.dtype: is left out, the other entries give bfloat16$")
def job_of_another_dtype(run: Path) -> None:
    """The identity has float32, by leaving it out."""
    edit_json(run / "run.json", lambda record: record["job"]["model"].update(dtype="bfloat16"))


@DAMAGES.add("^run.json identity.preprocess.resize: is None, the other entries give left out$", problems=2)
def job_of_another_resize(run: Path) -> None:
    """null in the identity is not the default, which is left out; a size_error has no reason then."""
    edit_json(run / "run.json", lambda record: record["job"]["preprocess"].update(resize=256))


@DAMAGES.add("^run.json identity.images.shards: is ", problems=2)
def size_of_a_shard(run: Path) -> None:
    """Contradicts the identity and the metadata of its file."""
    edit_json(run / "run.json", lambda record: record["shards"][0].update(size=10**6))


@DAMAGES.add("^run.json shards: their limits do not go with images.limit None, partial False")
def limit_of_a_shard(run: Path) -> None:
    """A run without limit."""
    edit_json(run / "run.json", lambda record: record["shards"][0].update(limit=6))


@DAMAGES.add("^run.json identity.model.checkpoint_sha256: is [0-9a-f]{64}, the other entries give 00$")
def checkpoint(run: Path) -> None:
    """Other weights than the identity's."""
    edit_json(run / "run.json", lambda record: record["checkpoint"].update(sha256="00"))


@DAMAGES.add("^run.json checkpoint.url: is /elsewhere, the job says ")
def url_of_the_checkpoint(run: Path) -> None:
    """Told twice, and not alike."""
    edit_json(run / "run.json", lambda record: record["checkpoint"].update(url="/elsewhere"))


@DAMAGES.add("^run.json name: is another, the job says ")
def name_of_the_run(run: Path) -> None:
    """`runs` and `status` show it."""
    edit_json(run / "run.json", lambda record: record.update(name="another"))


@DAMAGES.add(r"^run.json name: is 'two\\nlines\\udcff', the job says small$")
def name_on_two_lines(run: Path) -> None:
    """The finding is one line, fit to print."""
    edit_json(run / "run.json", lambda record: record.update(name="two\nlines\udcff"))


@DAMAGES.add("^run.json identity.images.first_label: is left out, the other entries give False$")
def truth_value_for_a_number(run: Path) -> None:
    """In Python False equals the default, 0."""
    edit_json(run / "run.json", lambda record: record["job"]["images"].update(first_label=False))


@DAMAGES.add("^run.json identity.images.label_names_sha256: is left out, the other entries give [0-9a-f]{64}$")
def names_of_labels(run: Path) -> None:
    """The identity holds their hash."""
    edit_json(run / "run.json", lambda record: record["job"]["images"].update(label_names=["a", "b", "c"]))


@DAMAGES.add("^run.json identity.images.version: is .\\\\udcff., the other entries give left out$", problems=2)
def identity_that_is_no_text(run: Path) -> None:
    """It has no run id, for that is a hash of UTF-8."""
    edit_json(run / "run.json", lambda record: record["identity"]["images"].update(version="\udcff"))


@pytest.mark.parametrize(("change", "expected", "problems"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_file_is_found(run: Path, change: Change, expected: str, problems: int) -> None:
    """One cause is as few lines as it can be."""
    change(run)
    found = verify(str(run)).problems
    assert has(found, expected)
    assert len(found) == problems, found


def test_a_shard_of_a_partial_run_has_a_limit(finished_partial: Path, tmp_path: Path) -> None:
    """Without one nobody knows how many rows its file should have; the others are still checked."""
    run = Path(shutil.copytree(finished_partial, tmp_path / finished_partial.name))
    edit_json(run / "run.json", lambda record: record["shards"][1].update(limit=None))
    report = verify(str(run))
    assert report.problems == ("run.json shards: their limits do not go with images.limit 9, partial True",)
    assert report.rows == 9


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("threat", 4, "threat: is 5, the other entries give 4"),
        ("per_axis", 3, "per_axis: is 2, the other entries give 3"),
        ("fill", "mean", "fill: is black, the other entries give left out"),
        ("early_exit", False, "early_exit: is True, the other entries give left out"),
    ],
)
def test_the_identity_has_the_masks_of_the_job(masks_run: Path, key: str, value: object, expected: str) -> None:
    """All that differs from the default."""
    edit_json(masks_run / "run.json", lambda record: record["job"]["ablation"].update({key: value}))
    assert f"run.json identity.ablation.{expected}" in verify(str(masks_run)).problems
