"""Options have the names of the command's options, and each is off unless it is asked for."""

from dataclasses import asdict, fields

from smoothcert.pipeline.certify.options import Options
from tests.pipeline.test_cli import OPTIONS


def test_each_option_is_one_of_the_command() -> None:
    names = {f"--{field.name.replace('_', '-')}" for field in fields(Options)}
    assert names <= set(OPTIONS["certify"].split()) & set(OPTIONS["nightly"].split())
    assert not any(asdict(Options()).values())
