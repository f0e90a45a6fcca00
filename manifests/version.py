"""The version of smoothcert. run.json and every file of votes record it, and pyproject.toml reads it here."""

__version__ = "0.1.0"
