"""Prove over whole datasets that no adversarial patch can fool an image classifier.

    job = smoothcert.load_job("job.yaml")
    smoothcert.certify(job)                        # votes and certificates to Parquet
    run = smoothcert.open_run("runs/RUN_ID")       # later, without the model
    smoothcert.query(run, smoothcert.questions_of(run.job, patches=[(32, 32)]))
    smoothcert.verify("runs/RUN_ID")
    smoothcert.compare(smoothcert.open_run("runs/OLD"), run)  # what changed, as data

The rooms of the house, smoothcert.manifests, smoothcert.workers and smoothcert.pipeline, are links here to the folders
of the repository. Names are imported when they are first used, so `import smoothcert` loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothcert.manifests.errors import RequestError as RequestError
    from smoothcert.manifests.errors import RunError as RunError
    from smoothcert.manifests.errors import SmoothcertError as SmoothcertError
    from smoothcert.manifests.gates import load_gates as load_gates
    from smoothcert.manifests.job import Job as Job
    from smoothcert.manifests.version import __version__ as __version__
    from smoothcert.pipeline.certify.driver import certify_all as certify  # noqa: F401
    from smoothcert.pipeline.compare.comparison import compare as compare
    from smoothcert.pipeline.compare.gates import evaluate as evaluate
    from smoothcert.pipeline.query.questions import query as query
    from smoothcert.pipeline.query.questions import questions_of as questions_of
    from smoothcert.pipeline.verify.check import verify as verify
    from smoothcert.workers.networks.described_jobs import load_job as load_job
    from smoothcert.workers.runs.run import Run as Run
    from smoothcert.workers.runs.run import open_run as open_run

_HOMES = {
    "Job": "manifests.job:Job",
    "RequestError": "manifests.errors:RequestError",
    "Run": "workers.runs.run:Run",
    "RunError": "manifests.errors:RunError",
    "SmoothcertError": "manifests.errors:SmoothcertError",
    "__version__": "manifests.version:__version__",
    "certify": "pipeline.certify.driver:certify_all",
    "compare": "pipeline.compare.comparison:compare",
    "evaluate": "pipeline.compare.gates:evaluate",
    "load_gates": "manifests.gates:load_gates",
    "load_job": "workers.networks.described_jobs:load_job",
    "open_run": "workers.runs.run:open_run",
    "query": "pipeline.query.questions:query",
    "questions_of": "pipeline.query.questions:questions_of",
    "verify": "pipeline.verify.check:verify",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smoothcert' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"smoothcert.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
