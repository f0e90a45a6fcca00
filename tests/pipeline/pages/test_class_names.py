"""Names of classes on a page: those that are named, else those of the run."""

from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.pages.class_names import class_names, name_of
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers.finished_runs import edit_json
from tests.helpers.judged_runs import image, judged_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of four classes."""
    return judged_run(tmp_path, {"a.tar": [image("0", [0] * 12)]})


def test_the_runs_names_are_used_if_no_others_are_named(run: Run, tmp_path: Path) -> None:
    """It may have none. Two classes may have one name: ImageNet has two kinds of cranes."""
    (tmp_path / "names").write_text("cat\ncrane\nowl\ncrane")
    assert class_names(None, run) == ()
    assert class_names(str(tmp_path / "names"), run) == ("cat", "crane", "owl", "crane")
    edit_json(Path(run.url, "run.json"), lambda record: record.update(class_names=["one", "two", "three", "four"]))
    assert class_names(None, open_run(run.url)) == ("one", "two", "three", "four")


@pytest.mark.parametrize("source", ["imagenet-1k", "names"])
def test_names_of_other_classes_are_refused(
    source: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of ImageNet would be wrong for ten other classes."""
    monkeypatch.chdir(tmp_path)
    Path("names").write_text("cat\nowl")
    with pytest.raises(RequestError, match=rf"--names: {source} holds [\d,]+ names, but the network has 4 classes"):
        class_names(source, run)


def test_a_class_is_its_number_and_its_name() -> None:
    """Not every class has one."""
    assert [name_of(number, ["cat", ""]) for number in (None, 0, 1, 2)] == ["no class", "0 (cat)", "1", "2"]
