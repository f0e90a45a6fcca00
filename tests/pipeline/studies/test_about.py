"""What the JSON of a study says about it."""

from pathlib import Path

from smoothcert.manifests.studies import Amplification
from smoothcert.pipeline.studies.about import about
from smoothcert.pipeline.studies.plan import plan_study
from smoothcert.pipeline.studies.selection import Choice, all_images
from smoothcert.workers.runs.run import open_run


def test_a_study_is_named_with_its_settings_and_choice(run: Path) -> None:
    opened = open_run(str(run))
    study = plan_study(opened, Amplification(iterations=3), Choice(2, 5), lambda: all_images(opened)).study
    value = about(study, ["shard 1: gone"])
    assert value["run_id"] == run.name
    assert value["path"] == f"{run}/studies/{value['study_id']}"
    assert value["settings"] == {"iterations": 3, "exact_below": 1024}
    assert value["choice"] == {"limit": 2, "seed": 5}
    assert (value["complete"], value["failures"]) == (False, ["shard 1: gone"])
    assert about(study, [])["complete"] is True
