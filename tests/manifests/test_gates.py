"""A gate file holds only gates that say something; each mistake is one line with the gate's place, key and remedy."""

from datetime import date
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.gates import load_gates

EXAMPLE = """
gates:
  - {metric: certified, patch: 32, max_lost: 5}
  - {metric: certified, patch: 16x48, max_drop: 0.005}
  - {metric: certified, patch: 32, class: each, max_drop: 0.1, min_images: 20}
  - {metric: smoothed, min: 0.60}
  - {metric: errors, max: 0.01}
accept:
  - {shard: val-00.tar, key: "000123", reason: relabelled, until: 2027-01-31}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "gates.yaml"
    path.write_text(text)
    return path


def assert_refused(folder: Path, text: str, says: str) -> None:
    """The message begins with the file's name and these words."""
    path = write(folder, text)
    with pytest.raises(RequestError) as refused:
        load_gates(path)
    assert str(refused.value).startswith(f"{path}: {says}")


def test_an_example(tmp_path: Path) -> None:
    """A patch is a side or height and width; a key keeps its zeros."""
    gates = load_gates(write(tmp_path, EXAMPLE))
    assert [gate.patch for gate in gates.gates] == [(32, 32), (16, 48), (32, 32), None, None]
    assert [gate.limits for gate in gates.gates] == [
        {"max_lost": 5},
        {"max_drop": 0.005},
        {"max_drop": 0.1},
        {"min": 0.6},
        {"max": 0.01},
    ]
    assert (gates.gates[2].class_, gates.gates[2].min_images) == ("each", 20)
    assert (gates.accept[0].key, gates.accept[0].until) == ("000123", date(2027, 1, 31))


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("{metric: certifed, patch: 3, max_lost: 5}", "gates.metric: 'certifed' should be 'certified', 'smoothed'"),
        ("{metric: certified, patch: 3y4, max_lost: 5}", "gates.patch: '3y4' is no patch; write a side such as 32"),
        ("{metric: certified, patch: true, max_lost: 5}", "gates.patch: True is no patch"),
        ("{metric: certified, patch: 0, max_lost: 5}", "gates.patch: 0 is no patch"),
        ("{metric: certified, patch: -3, max_lost: 5}", "gates.patch: -3 is no patch"),
        ("{metric: certified, patch: '0x3', max_lost: 5}", "gates.patch: '0x3' is no patch"),
        ("{metric: certified, patch: 3, max_drop: yes}", "gates.max_drop: True is no share; write a fraction such as"),
        ("{metric: smoothed, min: false}", "gates.min: False is no share; write a fraction such as"),
        ("{metric: certified, patch: 3, max_lost: -1}", "gates.max_lost: -1 should be greater than or equal to 0"),
        ("{metric: certified, patch: 3, max_lost: 0.5}", "gates.max_lost: 0.5 should be a valid integer"),
        (
            "{metric: certified, patch: 3, clas: each, max_drop: 0.1}",
            "gates.clas: unknown key; did you mean gates.class?",
        ),
        ("{metric: certified, patch: 3, class: all, max_drop: 0.1}", "gates.class: 'all' should be"),
        ("{metric: certified, max_lost: 5}", "gates: metric certified needs a patch, such as patch: 32"),
        ("{metric: certified, patch: 3}", "gates: sets no limit; add max_lost, max_drop or min"),
        (
            "{metric: certified, patch: 3, rule: tight, max_lost: 5}",
            "gates.rule: 'tight' should be 'exact', 'margin' or",
        ),
        ("{metric: certified, patch: 3, max_lost: 5, min_images: 3}", "gates: min_images belongs to `class: each`"),
        ("{metric: smoothed, min: 60}", "gates.min: 60 should be less than or equal to 1"),
        (
            "{metric: smoothed, patch: 3, min: 0.6}",
            "gates: patch, rule and certificate belong to metric certified, not",
        ),
        ("{metric: smoothed, max: 0.6}", "gates: metric smoothed has no max; errors has max, the others"),
        ("{metric: errors, max_lost: 6}", "gates: metric errors has no max_lost; errors has max"),
        ("{metric: errors}", "gates: sets no limit; add max"),
    ],
)
def test_a_gate_that_says_nothing_is_refused(tmp_path: Path, gate: str, says: str) -> None:
    assert_refused(tmp_path, f"gates: [{gate}]", says)


def test_of_several_gates_the_wrong_one_is_named(tmp_path: Path) -> None:
    """By its position, counted from 0."""
    with pytest.raises(RequestError, match=r"yaml: gates\[1\]\.min: 60 should be") as refused:
        load_gates(
            write(tmp_path, "gates: [{metric: smoothed, min: 0.6}, {metric: smoothed, min: 60}, {metric: errors}]")
        )
    assert "yaml: gates[2]: sets no limit" in str(refused.value)


@pytest.mark.parametrize(
    ("accept", "says"),
    [
        ("{shard: a.tar, key: 000123, reason: r}", "accept.key: 83 is a number or a date to YAML; write it in quotes"),
        ("{shard: a.tar, key: a, reason: ' '}", "accept.reason: ' ' is empty; write why the loss is accepted"),
        ("{shard: a.tar, key: a}", "accept.reason: missing; add it"),
        ("{shard: a.tar, key: a, reason: r, until: 20270131}", "accept.until: 20270131 is no date; write it as"),
        ("{shard: a.tar, key: a, reason: r, until: soon}", "accept.until: 'soon' should be a valid date"),
    ],
)
def test_an_acceptance_names_an_image_and_a_reason(tmp_path: Path, accept: str, says: str) -> None:
    assert_refused(tmp_path, f"gates: [{{metric: errors, max: 0.1}}]\naccept: [{accept}]", says)


def test_a_file_without_gates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"gates: \[\] is empty; name at least one gate"):
        load_gates(write(tmp_path, "gates: []"))


@pytest.mark.parametrize("text", ["", "- {metric: errors, max: 0.1}"])
def test_a_file_that_is_no_mapping_names_the_keys_of_a_gate_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(RequestError, match=r"yaml: a gate file is a mapping of keys such as `gates:` and `accept:`$"):
        load_gates(write(tmp_path, text))
