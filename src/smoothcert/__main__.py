"""`python -m smoothcert`: the same as `smoothcert`."""

from smoothcert.pipeline.cli import app

app()
