"""`smoothcert finetune` trains in this process, or in several training processes under Ray Train.

Both show the same: a bar on a terminal, and a line after each epoch.
Not covered: the training itself (workers/training/loop.py).
"""

import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.names import one_line
from smoothcert.manifests.shards import find_shards
from smoothcert.manifests.training import TrainExecution, Training
from smoothcert.pipeline.console.looks import console_of, say
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.class_names import with_label_names

if TYPE_CHECKING:
    from smoothcert.pipeline.cluster.resources import Share
    from smoothcert.workers.training.curves import Figures
    from smoothcert.workers.training.loop import Step
    from smoothcert.workers.training.validation import Validated

    Event = Step | Validated | Figures

_END = None  # follows the last event of a training
_LINE_EVERY_S = 60.0  # if no bar can be drawn


def finetune(training: Training, *, json_to: TextIO | None = None) -> None:
    """Train until the weights are published, and say where they are.

    Args:
        training: what to do.
        json_to: write one JSON object there; messages for people go to stderr.
    Raises:
        RequestError: the training file does not fit the model, the images, the output or this installation.
        RunError: the training cannot go on.
    """
    console = console_of(stderr=json_to is not None)
    training = _with_label_names(training)
    store, checkpoint = AnyStore(training.storage), training.model.checkpoint
    for images in [training.images, *([training.validation.images] if training.validation else [])]:
        find_shards(images, store, lambda notice: say(console, f"notice: {notice}"))
    if checkpoint is not None and store.find(checkpoint) is not None:  # if it is missing, the training says so
        with store.local(checkpoint) as file:
            layout = recognise(file, training.model.checkpoint_key, url=checkpoint).layout
        say(console, f"starts from {checkpoint}: {layout}")
    if training.execution.workers == 1:
        from smoothcert.workers.training.loop import train

        figures = _show(train(training), training, console)
    else:
        figures = _train_under_ray(training, console)
    weights = f"{training.url}/weights.safetensors"
    if json_to is not None:
        last = None if figures is None else figures.as_json()
        found = {"training": training.name, "path": training.url, "weights": weights, "figures": last}
        print(json.dumps(found), file=json_to)
    say(console, weights)


def _with_label_names(training: Training) -> Training:
    """The training with the lists of names that its labels stand for."""
    store, classes, validation = AnyStore(training.storage), training.model.classes, training.validation
    update: dict[str, Any] = {"images": with_label_names(training.images, classes, store)}
    if validation is not None:
        images = with_label_names(validation.images, classes, store)
        update["validation"] = validation.model_copy(update={"images": images})
    return training.model_copy(update=update)


def _show(events: "Iterable[Event]", training: Training, console: Console) -> "Figures | None":
    """Show the events; return the figures of the last epoch."""
    from smoothcert.workers.training.curves import Figures
    from smoothcert.workers.training.validation import Validated

    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"),
        TimeRemainingColumn(),
    )
    # Each of several processes votes on its own part of the held-out images.
    held_out = "held-out images" if training.execution.workers == 1 else "held-out images of the first process"
    last: Figures | None = None
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar, shown = progress.add_task("", total=None, epoch=f"1/{training.epochs}", what=""), time.monotonic()
        for event in events:
            epoch = f"{event.epoch}/{training.epochs}"
            if isinstance(event, Figures):
                last, line = event, event.line(training.epochs)
            else:
                what = held_out if isinstance(event, Validated) else f"images, loss {event.loss:.3f}"
                if progress.finished:
                    progress.reset(bar)  # otherwise the remaining time stays 0
                progress.update(bar, completed=event.images, total=event.total, epoch=epoch, what=what)
                if console.is_terminal or time.monotonic() < shown + _LINE_EVERY_S:
                    continue
                line = f"[{epoch}] {event.images:,} of {event.total:,} {what}"
            say(console, line)
            shown = time.monotonic()
    return last


def _train_under_ray(training: Training, console: Console) -> "Figures | None":
    """Train in several processes. If one is lost, all restart from the newest checkpoint.

    Returns:
        The figures of the last epoch.
    Raises:
        RequestError: Ray Train is not installed, or the cluster has no room.
        RunError: processes were lost more often than `execution.max_failures`.
    """
    _require_ray_train()
    from ray.util.queue import Queue

    from smoothcert.pipeline.cluster.connection import connect

    connect(partial(say, console))
    share = _share_of(training.execution)
    execution = training.execution.model_copy(update={"gpus_per_worker": share.gpus})
    decided = training.model_copy(update={"execution": execution})
    queue = Queue(actor_options={"num_cpus": 0})
    with ThreadPoolExecutor(1) as thread:
        shown = thread.submit(_show, _events_from(queue), training, console)
        try:
            for attempt in range(1, execution.max_failures + 2):
                error = _attempt(decided, share, queue, attempt)
                if error is None:
                    break
                cause, lost = _cause(error)
                if not lost or attempt > execution.max_failures:
                    raise cause from None
                say(console, f"notice: {cause}; attempt {attempt + 1}")
        finally:
            queue.put(_END)
            shown.result()
    return shown.result()


def _require_ray_train() -> None:
    try:
        import ray.train.torch  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"execution.workers: several training processes need Ray Train ({one_line(error)}); "
            "pip install 'smoothcert[train]', or use --local"
        ) from None


def _attempt(training: Training, share: "Share", queue: Any, attempt: int) -> Exception | None:
    """Train once in several processes; return what ended them too early."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    scaling = ScalingConfig(
        num_workers=training.execution.workers,
        use_gpu=share.gpus > 0,
        resources_per_worker={"CPU": share.cpus} | ({"GPU": share.gpus} if share.gpus else {}),
    )
    config = {"training": training.model_dump(mode="json"), "queue": queue}
    # What Ray stores is not needed: the state of a training is in its output. Ray's own attempts would also repeat
    # mistakes of the training file.
    with tempfile.TemporaryDirectory(prefix="smoothcert-") as folder:
        run = RunConfig(name=f"attempt-{attempt}", storage_path=folder, failure_config=FailureConfig(max_failures=0))
        try:
            TorchTrainer(_train_in_process, train_loop_config=config, scaling_config=scaling, run_config=run).fit()
        except TrainingFailedError as error:
            return error
    return None


def _events_from(queue: Any) -> "Iterator[Event]":
    while (event := queue.get()) is not _END:
        yield event


def _train_in_process(config: dict[str, Any]) -> None:
    """Train in one of several processes; the first reports its events."""
    import ray.train

    from smoothcert.workers.training.loop import train

    first = ray.train.get_context().get_world_rank() == 0
    for event in train(Training.model_validate(config["training"])):
        if first:
            config["queue"].put(event)


def _share_of(execution: TrainExecution) -> "Share":
    """Decide what each training process gets on this cluster.

    Raises:
        RequestError: there is no room, and no autoscaler to add machines.
    """
    import ray

    from smoothcert.pipeline.cluster.resources import Share

    gpus = execution.gpus_per_worker
    if gpus is None:
        gpus = float(ray.cluster_resources().get("GPU", 0) >= execution.workers)
    share = Share(execution.cpus_per_worker, gpus, execution.workers)
    share.require_room("worker")
    return share


def _cause(error: Exception) -> tuple[SmoothcertError, bool]:
    """The SmoothcertError behind Ray's error, or one that describes it; and whether a process was lost without one."""
    from smoothcert.pipeline.cluster.ray_errors import describe

    causes = [getattr(failure, "cause", failure) for failure in getattr(error, "worker_failures", {}).values()]
    if ours := [cause for cause in causes if isinstance(cause, SmoothcertError)]:
        return ours[0], False
    first = causes[0] if causes else getattr(error, "controller_failure", error)
    return RunError(f"{describe(first)}; run the same command again to continue"), True
