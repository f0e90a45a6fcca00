"""Prove over whole datasets that no adversarial patch can fool an image classifier.

    run = smoothcert.open_run("runs/RUN_ID")
    run.images(), run.votes()                      # Arrow, NumPy
    smoothcert.query(run, patches=[2, (4, 8)])     # certificates, without the model
    smoothcert.verify("runs/RUN_ID")
    smoothcert.compare(smoothcert.open_run("runs/OLD"), run)  # what changed, as data
    smoothcert.certify_votes(votes, {"kind": "column", "size": 4}, crop=32, classes=10)  # of any network
    smoothcert.vote(network, images, {"kind": "column", "size": 4}, mean=mean, std=std)
    run = smoothcert.certify(smoothcert.load_job("job.yaml"))

docs/python.md shows each of these. The rooms of the house, smoothcert.manifests, smoothcert.workers and
smoothcert.pipeline, are links here to the folders of the repository. Names are imported when they are first used, so
`import smoothcert` loads nothing else.
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
    from smoothcert.pipeline.certify.from_python import certify as certify
    from smoothcert.pipeline.compare.comparison import compare as compare
    from smoothcert.pipeline.compare.gates import evaluate as evaluate
    from smoothcert.pipeline.query.answering import query as query
    from smoothcert.pipeline.verify.check import verify as verify
    from smoothcert.workers.certificates.cast_votes import certify_votes as certify_votes
    from smoothcert.workers.certificates.cast_votes import query_votes as query_votes
    from smoothcert.workers.networks.described_jobs import load_job as load_job
    from smoothcert.workers.runs.run import Run as Run
    from smoothcert.workers.runs.run import open_run as open_run
    from smoothcert.workers.votes.in_memory import vote as vote

_HOMES = {
    "Job": "manifests.job:Job",
    "RequestError": "manifests.errors:RequestError",
    "Run": "workers.runs.run:Run",
    "RunError": "manifests.errors:RunError",
    "SmoothcertError": "manifests.errors:SmoothcertError",
    "__version__": "manifests.version:__version__",
    "certify": "pipeline.certify.from_python:certify",
    "certify_votes": "workers.certificates.cast_votes:certify_votes",
    "compare": "pipeline.compare.comparison:compare",
    "evaluate": "pipeline.compare.gates:evaluate",
    "load_gates": "manifests.gates:load_gates",
    "load_job": "workers.networks.described_jobs:load_job",
    "open_run": "workers.runs.run:open_run",
    "query": "pipeline.query.answering:query",
    "query_votes": "workers.certificates.cast_votes:query_votes",
    "verify": "pipeline.verify.check:verify",
    "vote": "workers.votes.in_memory:vote",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smoothcert' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"smoothcert.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
