"""From a job or a run, and settings, to a study: begun if it is new, otherwise continued.

Not covered: doing the work (driver.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Execution, Job, Storage, refuse_code
from smoothcert.manifests.locations import anchored
from smoothcert.manifests.studies import Study
from smoothcert.manifests.yaml_file import content_of, validate
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.studies.selection import Candidates, Choice, choose
from smoothcert.workers.iteration import batched
from smoothcert.workers.networks.described_jobs import load_job_or_suite
from smoothcert.workers.runs.json_file import parse
from smoothcert.workers.runs.layout import STUDIES
from smoothcert.workers.runs.run import Run, find_run, open_run
from smoothcert.workers.studies.study import STUDY_JSON, PartRecord, PartTask, StoredStudy, StudyRecord

IMAGES_PER_PART = 64  # an actor that dies loses the work on so many images


@dataclass(frozen=True)
class StudyPlan:
    """A study, and what of it is to do.

    Attributes:
        study: the study; its study.json exists.
        todo: the parts that are not published.
        allow_code: whether code that the job names may run.
    """

    study: StoredStudy
    todo: tuple[PartTask, ...]
    allow_code: bool = False

    @property
    def work_id(self) -> str:
        """The id of the study."""
        return self.study.record.study_id

    @property
    def execution(self) -> Execution:
        """Who computes."""
        return self.study.run.job.execution

    def published(self) -> set[str]:
        """Names of the files that the study has by now."""
        return self.study.published()


def run_to_study(
    target: str,
    overrides: Sequence[str] = (),
    storage: Storage = Storage(),  # noqa: B008  frozen
    *,
    allow_code: bool = False,
    begins: bool = True,
) -> Run:
    """The run that a user names, by its folder or by a job file.

    Who computes, and how to reach the tars, is what the user says now: of the job file, or `--set execution...` of a
    folder.

    Args:
        target: OUTPUT/RUN_ID, or a job file.
        overrides: KEY.PATH=VALUE each.
        storage: how to reach a run that is named by its folder.
        allow_code: whether code that the job names may run.
        begins: whether the run of a job file begins if it does not exist.
    Raises:
        RequestError: there is neither, a suite was named, or something that the job names cannot be used.
    """
    if not _is_file(target):
        run = open_run(anchored(target), storage)
        refuse_code(run.job.model, allow_code=allow_code)
        return _computed_by(run, _execution_of(run, target, overrides), run.job.storage)
    job = load_job_or_suite(Path(target), overrides)
    if not isinstance(job, Job):
        raise RequestError(f"{target}: is a suite; name a job file, or the folder of one run")
    plan = make_plan(job, allow_code=allow_code)
    if begins:
        begin(plan)
    begun = find_run(plan.run.url, plan.run.store)
    if begun is None:
        raise RequestError(
            f"{target}: its run {plan.run.run_id} does not exist; run `smoothcert certify {target}` first"
        )
    return _computed_by(begun, job.execution, job.storage)


def _execution_of(run: Run, target: str, overrides: Sequence[str]) -> Execution:
    """Who computes for a run that is named by its folder."""
    content = content_of(Job, overrides)
    if others := [key for key in content if key != "execution"]:
        raise RequestError(f"--set {others[0]}: would be another run; name a job file, or leave it out with {target}")
    return validate(Execution, run.job.execution.model_dump() | content.get("execution", {}), "--set")


def _computed_by(run: Run, execution: Execution, storage: Storage) -> Run:
    """The run with another `execution` and `storage`, which are no part of its identity."""
    changed = {"execution": execution.model_dump(mode="json"), "storage": storage.model_dump(mode="json")}
    return replace(run, record=run.record.model_copy(update={"job": {**run.record.job, **changed}}))


def _is_file(target: str) -> bool:
    return "://" not in target and not Path(target).is_dir()


def plan_study(
    run: Run, settings: Study, choice: Choice, candidates: Callable[[], Candidates], *, allow_code: bool = False
) -> StudyPlan:
    """Begin a study, or find the one that the same command began.

    Args:
        run: whose images are measured.
        settings: what is measured.
        choice: how the images are chosen.
        candidates: gives the images among which they are chosen; only called for a new study.
        allow_code: whether code that the job names may run.
    Raises:
        RequestError: there are no images to choose from.
        RunError: the files of the study are damaged.
    """
    study_id = settings.id_for(run.run_id, choice.as_json())
    name = f"{STUDIES}/{study_id}/{STUDY_JSON}"
    url = f"{run.url}/{name}"
    if run.store.find(url) is None:
        chosen = choose(candidates(), choice)
        record = StudyRecord(
            study_id=study_id,
            run_id=run.run_id,
            kind=settings.kind,
            settings=settings.model_dump(mode="json"),
            choice=choice.as_json(),
            candidates=chosen.candidates,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            parts=tuple(
                PartRecord(shard=shard, images=tuple(images))
                for shard, all_of_it in chosen.images.items()
                for images in batched(all_of_it, IMAGES_PER_PART)
            ),
        )
        run.store.publish(run.url, name, record.encode())
    study = StoredStudy(run, parse(StudyRecord, run.store.read(url), url))
    return StudyPlan(study, study.missing(), allow_code)
