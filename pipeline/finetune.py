"""`smoothcert finetune`: a training here, or one of several processes under Ray Train.

What is shown: a bar on a terminal, else a line an epoch. Not covered: the training itself (workers/training.py).
"""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from manifests.errors import RequestError
from manifests.training import Training


def finetune(training: Training) -> None:
    """Train until the weights are published, and say where they are.

    Raises:
        RequestError: the training file does not fit the model, the images, the output or this installation.
        RunError: the training cannot go on.
    """
    console = Console(highlight=False, soft_wrap=True)
    if training.execution.workers == 1:
        _show(training, console)
    else:
        _under_ray(training)
    console.print(f"{training.url}/weights.safetensors", markup=False)


def _show(training: Training, console: Console) -> None:
    """Train in this process."""
    from workers.curves import Figures
    from workers.training import train

    titles = TextColumn("epoch {task.fields[epoch]}"), TextColumn("loss {task.fields[loss]:.3f}")
    columns = titles[0], BarColumn(), MofNCompleteColumn(), titles[1], TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None, epoch=f"1/{training.epochs}", loss=float("nan"))
        for event in train(training):
            if isinstance(event, Figures):
                console.print(event.line(training.epochs), markup=False)
            else:
                progress.update(
                    bar,
                    completed=event.images,
                    total=event.total,
                    epoch=f"{event.epoch}/{training.epochs}",
                    loss=event.loss,
                )


def _under_ray(training: Training) -> None:
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise RequestError(
            f"execution.workers: several need Ray Train ({' '.join(str(error).split())}); "
            "pip install 'smoothcert[train]', or use --local"
        ) from None
    chosen = training.execution
    resources: dict[str, Any] = {"CPU": chosen.cpus_per_worker}
    if chosen.gpus_per_worker:
        resources["GPU"] = chosen.gpus_per_worker
    TorchTrainer(
        _worker,
        train_loop_config={"training": training.model_dump(mode="json")},
        scaling_config=ScalingConfig(
            num_workers=chosen.workers, use_gpu=chosen.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(name=training.name),
    ).fit()


def _worker(config: dict[str, Any]) -> None:
    """One of several processes; the first prints a line an epoch."""
    import ray.train

    from workers.curves import Figures
    from workers.training import train

    training = Training.model_validate(config["training"])
    for event in train(training):
        if isinstance(event, Figures):
            if ray.train.get_context().get_world_rank() == 0:
                print(event.line(training.epochs), flush=True)
            ray.train.report(event.as_json())
