"""The group's own series, as its leading pod tells them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from glm_worker.supervisor.evidence.causes import REASONS, Cause
from glm_worker.supervisor.evidence.history import STATES, History, State
from glm_worker.supervisor.management.telemetry import FollowerTelemetry, Telemetry

IDENTITY = {"namespace": "models", "deployment": "chat", "group": "chat-g1", "revision": "abc"}
KILLED = Cause(rank=1, pod=0, reason="killed", message="rank 1 was killed")
BORN = 1000.0


def values(state: State, history: History, *, server_answers: bool = True) -> dict[str, float]:
    """Return the series of a leader without labels of their own, by name."""
    text = Telemetry(IDENTITY).render(state, history, server_answers=server_answers)
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels == IDENTITY
    }


def since(state: State, history: History) -> tuple[float, float, float]:
    """Return since when it serves, since when it starts, and whether it drains."""
    found = values(state, history)
    names = ("serving_timestamp_seconds", "starting_timestamp_seconds", "draining")
    serving, starting, draining = (found[f"glm_group_{name}"] for name in names)
    return serving, starting, draining


def test_a_group_starts_from_its_birth_through_failed_starts_until_it_serves() -> None:
    history = History(BORN)
    assert since("waiting_for_peers", history) == (0, BORN, 0)
    history.begin("a-1", 1010.0)
    assert since("starting", history) == (0, BORN, 0)
    history.end(KILLED, 1020.0)
    assert since("backing_off", history) == (0, BORN, 0)
    history.begin("a-2", 1030.0)
    history.serve(1040.0)
    assert since("serving", history) == (1040, 0, 0)


def test_a_group_that_was_interrupted_starts_from_then_on() -> None:
    history = History(BORN)
    history.begin("a-1", 1010.0)
    history.serve(1040.0)
    history.interrupt(1100.0)
    assert since("starting", history) == (0, 1100, 0)
    history.end(KILLED, 1101.0)
    assert since("starting", history) == (0, 1100, 0)
    history.begin("a-2", 1102.0)
    history.serve(1105.0)
    assert since("serving", history) == (1105, 0, 0)


def test_a_group_that_drains_neither_serves_nor_starts() -> None:
    history = History(BORN)
    history.begin("a-1", 1010.0)
    history.serve(1040.0)
    assert since("draining", history) == (0, 0, 1)


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_does_not_answer_is_told(answers: bool) -> None:
    assert values("starting", History(BORN), server_answers=answers)["glm_server_answering"] == answers


def test_every_series_says_whose_it_is_and_exists_from_the_start() -> None:
    text = Telemetry(IDENTITY).render("starting", History(BORN), server_answers=False)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert all(IDENTITY.items() <= sample.labels.items() for sample in samples)
    reasons = {sample.labels["reason"] for sample in samples if sample.name == "glm_generation_ends_total"}
    phases = {sample.labels["phase"] for sample in samples if sample.name == "glm_cold_start_seconds"}
    states = {sample.labels["state"] for sample in samples if sample.name == "glm_group_state"}
    assert (reasons, phases, states) == (set(REASONS), {"import", "generation", "total"}, set(STATES))


def test_a_pod_that_follows_tells_nothing_of_the_group() -> None:
    text = FollowerTelemetry(IDENTITY, 1).render(is_connected=True, is_refused=False)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {sample.name: sample.value for sample in samples} == {"glm_follower_connected": 1, "glm_follower_refused": 0}
    assert all(sample.labels == {**IDENTITY, "pod_index": "1"} for sample in samples)
