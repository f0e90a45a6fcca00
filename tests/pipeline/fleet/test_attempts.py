"""Who gets which shard, what a death costs, when a shard is given up: rule by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.errors import RunError, ShardError
from smoothcert.pipeline.fleet.attempts import (
    QUEUE_LOOKAHEAD,
    SHARDS_PER_ACTOR,
    STALLED_S,
    Attempts,
    Decision,
)
from smoothcert.pipeline.fleet.events import CannotStart, Failure, Requeued
from tests.helpers.made_up_actors import task_of

MAX_ATTEMPTS = 3


TASKS = [task_of(index) for index in range(10)]


def attempts_of(shards: int, *, max_attempts: int = MAX_ATTEMPTS, **machines: str) -> Attempts[str]:
    """So many shards in the queue, and actors that run on these machines."""
    attempts = Attempts[str](max_attempts)
    attempts.enqueue(map(task_of, range(shards)))
    for actor, machine in machines.items():
        start(attempts, actor, machine)
    return attempts


def start(attempts: Attempts[str], actor: str, machine: str) -> None:
    attempts.add(actor)
    attempts.runs(actor, machine)


def hand_out(attempts: Attempts[str], *, wanted: int = 1, now: float = 0.0) -> dict[str, list[int]]:
    """The shards that each actor gets now."""
    got: dict[str, list[int]] = {}
    for actor, task in attempts.hand_out(wanted, now):
        got.setdefault(actor, []).append(task.index)
    return got


def again(reason: str, *indices: int) -> Decision:
    return [Requeued(TASKS[index], reason) for index in indices]


def given_up(index: int, attempts: int, reason: str) -> Decision:
    return [Failure(TASKS[index], f"shard {index:02d}.tar: given up after {attempts} attempts, the last: {reason}")]


# What happens, and what it costs


def test_a_bad_tar_fails_at_once_and_its_actor_goes_on() -> None:
    """Trying again would not help."""
    attempts = attempts_of(1, a="m")
    hand_out(attempts)
    assert attempts.failed("a", TASKS[0], ShardError("bad"), {"m"}, on_purpose=True) == [Failure(TASKS[0], "bad")]
    assert "a" in attempts.actors
    assert attempts.is_over


def test_an_error_on_purpose_costs_an_attempt_and_its_actor_goes_on() -> None:
    """The actor gets the same shard again where there is no other machine, until its attempts are used up."""
    attempts = attempts_of(1, max_attempts=2, a="m")
    hand_out(attempts)
    assert attempts.failed("a", TASKS[0], RunError("no answer"), {"m"}, on_purpose=True) == again("no answer", 0)
    assert hand_out(attempts) == {"a": [0]}
    last = attempts.failed("a", TASKS[0], RunError("no answer"), {"m"}, on_purpose=True)
    assert last == given_up(0, 2, "no answer")
    assert attempts.is_over


def test_any_other_error_costs_an_attempt_and_replaces_the_actor() -> None:
    """The process may be broken, as CUDA errors leave it: its other shard goes back and is charged nothing."""
    attempts = attempts_of(3, max_attempts=1, a="m")
    assert hand_out(attempts) == {"a": [0, 1]}
    decision = attempts.failed("a", TASKS[0], RunError("CUDA error"), {"m"}, on_purpose=False)
    assert decision == given_up(0, 1, "CUDA error") + again("its actor was replaced after an error: CUDA error", 1)
    assert "a" not in attempts.actors


@pytest.mark.parametrize("machine_lives", [True, False])
def test_a_stall_costs_an_attempt(machine_lives: bool) -> None:
    """Also if its machine is gone by then: the actor answered, so the machine was not the reason."""
    attempts = attempts_of(1, max_attempts=1, a="m")
    hand_out(attempts)
    alive = {"m"} if machine_lives else set()
    assert attempts.lost("a", "no batch", alive, stalled=True) == given_up(0, 1, "no batch")


def test_an_actor_stalls_if_it_does_no_batch_for_a_long_time() -> None:
    """Counted from its first shard and from each batch; a second shard is no progress. An idle actor never stalls."""
    attempts = attempts_of(3, a="m", idle="m")
    attempts.dismiss("idle")
    hand_out(attempts, wanted=3, now=100)
    assert hand_out(attempts, wanted=1, now=200) == {"a": [1]}
    assert attempts.stalled(100 + STALLED_S) == []
    assert attempts.stalled(101 + STALLED_S) == ["a"]
    attempts.progressed("a", now=1000)
    assert attempts.stalled(1000 + STALLED_S) == []
    start(attempts, "b", "m")
    assert attempts.stalled(1001 + STALLED_S) == ["a"]


@pytest.mark.parametrize(
    ("shards", "machine_lives", "costs"),
    [
        (1, True, True),
        (1, False, False),  # the machine's end is not the shard's fault
        (2, True, False),  # whose fault it was is unknown
        (2, False, False),
    ],
)
def test_a_death_costs_an_attempt_if_the_machine_lives_and_the_actor_had_one_shard(
    shards: int, machine_lives: bool, costs: bool
) -> None:
    """Nothing else counts: with one attempt allowed, the shard is given up exactly then."""
    attempts = attempts_of(shards, max_attempts=1, a="m")
    assert hand_out(attempts, wanted=0) == {"a": list(range(shards))}
    alive = {"m"} if machine_lives else set()
    decision = attempts.lost("a", "killed", alive)
    assert decision == (given_up(0, 1, "killed") if costs else again("killed", *range(shards)))


def test_a_loss_is_forgiven_if_its_machine_ends_later() -> None:
    """A machine that is about to end kills actors first."""
    attempts = attempts_of(1, max_attempts=2, a="dying", b="good")
    hand_out(attempts)
    assert attempts.lost("a", "killed", {"dying", "good"}) == again("killed", 0)
    hand_out(attempts)
    assert attempts.machines_in_doubt("b") == {"dying", "good"}
    assert attempts.lost("b", "killed", {"good"}) == again("killed", 0)


@pytest.mark.parametrize("way", ["lost", "failed"])
def test_a_report_before_the_end_of_its_actor_counts(way: str) -> None:
    """The shard is done: it neither goes back nor is given up."""
    attempts = attempts_of(2, max_attempts=1, a="m")
    assert hand_out(attempts, wanted=0) == {"a": [0, 1]}
    attempts.reported("a", TASKS[0])
    if way == "lost":
        assert attempts.lost("a", "killed", {"m"}) == again("killed", 1)
    else:
        decision = attempts.failed("a", TASKS[0], RunError("odd"), {"m"}, on_purpose=False)
        assert decision == again("its actor was replaced after an error: odd", 1)


def test_a_shard_ends_with_its_stream() -> None:
    """Until then its actor has it, so that the report's sender is not ended early."""
    attempts = attempts_of(1, a="m")
    hand_out(attempts)
    attempts.reported("a", TASKS[0])
    assert not attempts.is_over
    assert attempts.ended("a", TASKS[0]) == []
    assert attempts.is_over


# Who gets which shard


def test_shards_go_out_in_the_order_of_the_queue() -> None:
    """One to each actor first, then a second one to each; one that comes back is the last."""
    attempts = attempts_of(7, a="m", b="n")
    assert hand_out(attempts, wanted=2) == {"a": [0, 2], "b": [1, 3]}
    attempts.failed("a", TASKS[0], RunError("x"), {"m"}, on_purpose=True)
    for index in (1, 3):
        attempts.reported("b", TASKS[index])
        attempts.ended("b", TASKS[index])
    assert hand_out(attempts, wanted=0) == {"b": [4, 6], "a": [5]}
    attempts.take_back("a", TASKS[5])
    attempts.take_back("b", TASKS[6])
    assert hand_out(attempts, wanted=0) == {"b": [0]}  # it failed at a's machine
    assert SHARDS_PER_ACTOR == 2


@pytest.mark.parametrize(("wanted", "gets"), [(2, [0, 1]), (3, [0])])
def test_a_second_shard_needs_a_queue_with_enough_for_all(wanted: int, gets: list[int]) -> None:
    """Four shards: three are left after the first, which must be more than the actors wanted."""
    assert hand_out(attempts_of(4, a="m"), wanted=wanted) == {"a": gets[:1] + gets[1:]}


def test_after_a_loss_a_shard_has_its_actor_to_itself() -> None:
    """It is given no second shard, and is no second shard."""
    attempts = attempts_of(5, a="m")
    assert hand_out(attempts) == {"a": [0, 1]}
    attempts.lost("a", "killed", {"m"})
    start(attempts, "b", "m")
    assert hand_out(attempts, wanted=0) == {"b": [2, 3]}
    for index in (2, 3):
        attempts.reported("b", TASKS[index])
        attempts.ended("b", TASKS[index])
    assert hand_out(attempts, wanted=0) == {"b": [4]}  # shards 0 and 1 wait
    attempts.ended("b", TASKS[4])
    attempts.stop()
    attempts = attempts_of(2, a="m")
    hand_out(attempts, wanted=0)
    attempts.lost("a", "killed", {"m"})
    start(attempts, "b", "m")
    assert hand_out(attempts, wanted=0) == {"b": [0]}


def test_a_shard_avoids_machines_where_it_failed() -> None:
    """Unless it failed on all of those that run actors now."""
    attempts = attempts_of(1, a="m", b="n")
    attempts.dismiss("b")
    hand_out(attempts)
    attempts.failed("a", TASKS[0], RunError("x"), {"m"}, on_purpose=True)
    start(attempts, "c", "n")
    assert hand_out(attempts) == {"c": [0]}
    attempts.lost("c", "killed", {"m", "n"})
    assert hand_out(attempts) == {"a": [0]}


def test_the_lookahead_is_limited() -> None:
    """A shard behind so many that may not be tried here waits: looking at thousands for each actor would take long."""
    attempts = Attempts[str](MAX_ATTEMPTS)
    *tasks, fresh = map(task_of, range(QUEUE_LOOKAHEAD + 2))
    attempts.enqueue(tasks)
    start(attempts, "bad", "m")
    for task in tasks:
        assert hand_out(attempts, wanted=1000) == {"bad": [task.index]}
        attempts.failed("bad", task, RunError("x"), {"m"}, on_purpose=True)
    attempts.enqueue([fresh])
    start(attempts, "good", "n")
    assert hand_out(attempts, wanted=1000) == {"good": [0]}
    attempts.take_back("good", tasks[0])
    assert hand_out(attempts, wanted=1000) == {"good": [1], "bad": [fresh.index]}


def test_an_actor_without_a_machine_gets_nothing() -> None:
    """Nor is it kept where there is nothing to do for it."""
    attempts = attempts_of(1)
    attempts.add("a")
    assert hand_out(attempts) == {}
    assert attempts.waiting() == ["a"]
    assert attempts.actors_missing(5, now=0) == 0
    attempts.stop()
    assert attempts.actors_missing(5, now=0) == -1


def test_a_shard_that_another_driver_has_published_is_over() -> None:
    """Its actor gets the next one in the same round."""
    attempts = attempts_of(2, a="m")
    given = []
    for actor, task in attempts.hand_out(5, 0):
        given.append(task.index)
        if task.index == 0:
            attempts.take_back(actor, task)
    assert given == [0, 1]


def test_after_a_stop_nothing_goes_out_or_back() -> None:
    """What an actor still ends is reported; what it leaves is done by the next run of the command."""
    attempts = attempts_of(5, a="m", b="n")
    hand_out(attempts, wanted=0)
    attempts.stop()
    assert hand_out(attempts) == {}
    attempts.reported("a", TASKS[0])
    assert attempts.ended("a", TASKS[0]) == []
    assert attempts.ended("a", TASKS[2]) == []
    assert attempts.lost("b", "killed", {"n"}) == []
    assert attempts.is_over


# How many actors


def test_as_many_actors_start_as_there_are_shards_and_room() -> None:
    """A busy actor counts as a shard."""
    attempts = attempts_of(3)
    assert [attempts.actors_missing(wanted, now=0) for wanted in (1, 3, 8)] == [1, 3, 3]
    start(attempts, "a", "m")
    hand_out(attempts, wanted=9)
    assert [attempts.actors_missing(wanted, now=0) for wanted in (1, 3, 8)] == [0, 2, 2]


def test_a_lost_actor_is_replaced_while_another_machine_cannot_start_any() -> None:
    """The wait is for machines that fail, not for those that work. Actors that start already are not ended for it."""
    attempts = attempts_of(9, a="m", b="m")
    attempts.add("c")
    assert attempts.cannot_start("c", "no torch", now=0) == [CannotStart("no torch")]
    assert attempts.actors_missing(3, now=1) == 0
    assert attempts.actors_missing(3, now=5) == 1
    hand_out(attempts)
    attempts.lost("a", "killed", {"m"})
    assert attempts.actors_missing(3, now=1) == 1
    for name in "def":
        attempts.add(name)
    assert attempts.actors_missing(4, now=1) == 0


# Whole runs


@given(
    machines=st.integers(1, 3),
    actors=st.integers(1, 4),
    shards=st.integers(1, 30),
    max_attempts=st.integers(1, 5),
    poison=st.sets(st.integers(0, 29), max_size=3),
)
def test_a_shard_that_kills_every_actor_is_given_up_and_the_run_ends(
    machines: int, actors: int, shards: int, max_attempts: int, poison: set[int]
) -> None:
    """After exactly `max_attempts` deaths that count; all other shards are done, whatever company they had."""
    attempts, started, deaths, done = attempts_of(shards, max_attempts=max_attempts), 0, dict[int, int](), set[int]()
    alive = {f"m{number}" for number in range(machines)}
    for _ in range(10 * (shards + max_attempts * (len(poison) + 1))):
        if attempts.is_over:
            break
        for _ in range(attempts.actors_missing(actors, now=0)):
            start(attempts, f"a{started}", f"m{started % machines}")
            started += 1
        list(attempts.hand_out(actors, 0))
        for name in attempts.busy:
            has = list(attempts._actors[name].shards.values())
            if any(task.index in poison for task in has):
                if len(has) == 1:
                    deaths[has[0].index] = deaths.get(has[0].index, 0) + 1
                attempts.lost(name, "killed", alive)
                continue
            for task in has:
                attempts.reported(name, task)
                attempts.ended(name, task)
                done.add(task.index)
    assert attempts.is_over
    assert done == set(range(shards)) - poison
    assert deaths == {index: max_attempts for index in poison if index < shards}
