"""`smoothcert finetune`: a training in this process, or one of several processes under Ray Train.

What is shown is the same for both: a bar on a terminal, and a line an epoch.
Not covered: the training itself (workers/training.py).
"""

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from manifests.errors import RequestError, RunError, SmoothcertError
from manifests.training import Training

if TYPE_CHECKING:
    from workers.curves import Figures
    from workers.training import Step

    Event = Step | Figures

_END = None


def finetune(training: Training) -> None:
    """Train until the weights are published, and say where they are.

    Raises:
        RequestError: the training file does not fit the model, the images, the output or this installation.
        RunError: the training cannot go on.
    """
    console = Console(highlight=False, soft_wrap=True)
    if training.execution.workers == 1:
        from workers.training import train

        _show(train(training), training.epochs, console)
    else:
        _under_ray(training, console)
    console.print(f"{training.url}/weights.safetensors", markup=False)


def _show(events: "Iterable[Event]", epochs: int, console: Console) -> None:
    from workers.curves import Figures

    titles = TextColumn("epoch {task.fields[epoch]}"), TextColumn("loss {task.fields[loss]:.3f}")
    columns = titles[0], BarColumn(), MofNCompleteColumn(), titles[1], TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None, epoch=f"1/{epochs}", loss=float("nan"))
        for event in events:
            if isinstance(event, Figures):
                console.print(event.line(epochs), markup=False)
            else:
                epoch = f"{event.epoch}/{epochs}"
                progress.update(bar, completed=event.images, total=event.total, epoch=epoch, loss=event.loss)


def _under_ray(training: Training, console: Console) -> None:
    """Several processes; when one is lost, all begin again from the newest checkpoint."""
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError
    except ImportError as error:
        raise RequestError(
            f"execution.workers: several need Ray Train ({' '.join(str(error).split())}); "
            "pip install 'smoothcert[train]', or use --local"
        ) from None
    import ray
    from ray.util.queue import Queue

    from pipeline.cluster import connect

    connect()
    chosen = training.execution
    gpus = chosen.gpus_per_worker
    if gpus is None:
        gpus = float(ray.cluster_resources().get("GPU", 0) >= chosen.workers)
    share = {"CPU": chosen.cpus_per_worker} | ({"GPU": gpus} if gpus else {})
    _refuse_too_many(chosen.workers, share, ray.cluster_resources())
    queue = Queue(actor_options={"num_cpus": 0})
    with tempfile.TemporaryDirectory(prefix="smoothcert-") as folder, ThreadPoolExecutor(1) as shower:
        shown = shower.submit(_show, _heard(queue), training.epochs, console)
        try:
            TorchTrainer(
                _worker,
                train_loop_config={"training": training.model_dump(mode="json"), "queue": queue},
                scaling_config=ScalingConfig(num_workers=chosen.workers, use_gpu=gpus > 0, resources_per_worker=share),
                # What Ray keeps is not needed: the state of a training is in its output.
                run_config=RunConfig(
                    name=training.name,
                    storage_path=folder,
                    failure_config=FailureConfig(max_failures=chosen.max_failures),
                ),
            ).fit()
        except TrainingFailedError as error:
            raise _cause(error) from None
        finally:
            queue.put(_END)
            shown.result()


def _heard(queue: Any) -> "Iterator[Event]":
    while (event := queue.get()) is not _END:
        yield event


def _worker(config: dict[str, Any]) -> None:
    """One of several processes."""
    import ray.train

    from workers.training import train

    first = ray.train.get_context().get_world_rank() == 0
    for event in train(Training.model_validate(config["training"])):
        if first:
            config["queue"].put(event)


def _refuse_too_many(workers: int, share: dict[str, float], cluster: dict[str, float]) -> None:
    """Ray would wait for ever."""
    from pipeline.cluster import has_autoscaler

    for kind, each in share.items():
        if workers * each > cluster.get(kind, 0) and not has_autoscaler():
            raise RequestError(
                f"execution: {workers} worker(s) of {each:g} {kind} asked for, the cluster has "
                f"{cluster.get(kind, 0):g}; lower execution.workers, cpus_per_worker or gpus_per_worker"
            )


def _cause(error: Exception) -> SmoothcertError:
    """Our own error behind Ray's, or one line of what happened."""
    causes = [getattr(failure, "cause", failure) for failure in getattr(error, "worker_failures", {}).values()]
    if ours := [cause for cause in causes if isinstance(cause, SmoothcertError)]:
        return ours[0]
    said = " ".join(str(causes[0] if causes else error).split())
    return RunError(f"{said[-300:]}; the same command goes on from here")
