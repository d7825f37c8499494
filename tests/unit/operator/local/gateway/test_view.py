"""What a gateway says, as local mode understands it."""

import msgspec
import pytest

from glm_operator.autoscale.zero.asked import Said
from glm_operator.local.gateway.view import DemandView, GroupView, ModelDemand, ModelView, StateView

READY, GOING, LOADING = GroupView(ready=True), GroupView(ready=True, leaving=True), GroupView()
VIEW = StateView(models={"a": ModelView({"a-g0": READY, "a-g1": GOING}), "b": ModelView({"b-g0": LOADING})})


@pytest.mark.parametrize(
    ("groups", "is_so"),
    [([], True), (["a-g0"], True), (["a-g0", "a-g1"], False), (["b-g0"], False), (["c-g0"], False)],
)
def test_a_group_is_known_ready_when_requests_are_sent_to_it(groups: list[str], is_so: bool) -> None:
    assert VIEW.knows_ready(groups) is is_so


@pytest.mark.parametrize(("group", "is_so"), [("a-g0", True), ("a-g1", False), ("b-g0", True), ("c-g0", False)])
def test_a_group_may_get_requests_until_it_is_seen_to_leave_or_is_gone(group: str, is_so: bool) -> None:
    assert VIEW.sends_to(group) is is_so


def test_a_file_is_taken_when_it_holds_or_when_it_is_said_why_not() -> None:
    assert StateView(config_digest="d").takes("d")
    assert not StateView(config_digest="before").takes("d")
    assert StateView(config_digest="before", config_fault="models: field required").takes("d")


def test_what_is_said_of_a_deployment_is_found_by_whose_groups_they_are() -> None:
    view = DemandView(models={"glm-nano": ModelDemand(held=2, idle_s=0.0, deployment="chat")}, up_s=9.0)
    assert view.said("chat") == Said(held=2, running=0, oldest_s=0.0, idle_s=0.0, up_s=9.0)
    assert view.said("glm-nano") is None


@pytest.mark.parametrize("tokens", [None, 0, 340])
def test_the_tokens_that_wait_are_told_or_unknown_and_never_a_zero_for_it(tokens: int | None) -> None:
    told = {"held": 2, "deployment": "chat", **({} if tokens is None else {"held_tokens": tokens})}
    view = msgspec.json.decode(msgspec.json.encode({"models": {"glm-nano": told}, "up_s": 3.0}), type=DemandView)
    said = view.said("chat")
    assert said is not None
    assert said.held_tokens == tokens


def test_what_a_later_version_adds_is_passed_over() -> None:
    told = {"models": {"a": {"held": 2, "new": 1}, "b": {"held": 1, "idle_s": None}}, "up_s": 3.0, "more": {}}
    view = msgspec.json.decode(msgspec.json.encode(told), type=DemandView)
    assert (view.held, view.models["b"].idle_s) == (3, None)
