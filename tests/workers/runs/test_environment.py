"""The environments of files and actors can be compared."""

import json

from smoothcert.workers.runs.environment import environment_of

METADATA = {"run_id": "abc", "versions": {"torch": "2.15.0", "pillow": "13"}, "decoder": "Pillow 13", "device": "cpu"}


def test_only_the_environment_counts():
    """Files of different shards by the same machine have the same environment; the order of keys is no matter."""
    other = {"device": "cpu", "decoder": "Pillow 13", "versions": {"pillow": "13", "torch": "2.15.0"}, "seconds": 3}
    assert environment_of(METADATA) == environment_of(other)


def test_each_part_of_the_environment_counts():
    """Another version, decoder or device is another environment; one that a file does not name is null."""
    others = [{"versions": {"torch": "2.15.1"}}, {"decoder": "Pillow 12"}, {"device": "NVIDIA H200"}]
    environments = {environment_of(METADATA | other) for other in others} | {environment_of(METADATA)}
    assert len(environments) == 4
    assert json.loads(environment_of({"device": "cpu"})) == {"versions": None, "decoder": None, "device": "cpu"}
