"""What the status says of latencies and promises."""

from typing import Any

import pytest

from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.signals import Input, State
from glm_operator.status.events import transitions
from glm_operator.status.summary import summarize
from unit.operator.measured_builders import NO_SERIES, a_class, a_decision, measured, value
from unit.operator.operator_builders import a_group, moving_to, observed
from unit.operator.status_builders import a_report, conditions, facts, message

SLO = Slo.model_validate({"classes": [{"name": "chat", "ttft": "500ms"}]})


def status(**changes: Any) -> dict[str, Any]:
    reports = {f"chat-g{index}": a_report("serving", slo_digest="x", in_flight_tokens=0) for index in (0, 1)}
    whole: dict[str, Any] = {"slo": SLO, "is_measured": True, "measured": measured(), "reports": reports}
    return summarize(facts(**{**whole, **changes}))


def test_what_is_measured_is_said_in_texts() -> None:
    said = status()
    assert said["latency"] == {"ttftP95": "420ms", "itlP95": "31ms"}
    assert said["slo"] == {
        "attainment": "99.5%",
        "budgetLeft": "87%",
        "classes": [{"name": "chat", "met": True, "ttft": "300ms", "attainment": "99.5%", "budgetLeft": "87%"}],
    }
    assert conditions(said)["SLOMet"] == ("True", "SLOKept")
    assert conditions(said)["MetricsAvailable"] == ("True", "MetricsRead")


def test_the_class_that_fares_worst_speaks_for_all() -> None:
    slo = Slo.model_validate({"classes": [{"name": name, "ttft": "1s"} for name in ("a", "b")]})
    classes = (a_class("a"), a_class("b", attainment=value(0.9), budget_left=value(-0.2)))
    said = status(slo=slo, measured=measured(classes=classes, met={"a": True, "b": True}))
    assert (said["slo"]["attainment"], said["slo"]["budgetLeft"]) == ("90%", "-20%")


def test_a_missed_promise_is_a_condition_and_no_lack_of_readiness() -> None:
    seen = measured(classes=(a_class(ttft=0.62),), met={"chat": False}, decision=a_decision(4, 4, limited_by="Max"))
    said = status(measured=seen)
    assert conditions(said)["SLOMet"] == ("False", "SLOMissed")
    assert message(said, "SLOMet") == "class chat: ttft P95 is 620ms, promised 500ms; scaling is limited by Max"
    assert conditions(said)["Ready"] == ("True", "AllGroupsReady")
    assert conditions(said)["Degraded"] == ("False", "Healthy")


def test_a_promise_that_no_group_can_keep_says_why() -> None:
    seen = measured(met={"chat": False}, decision=a_decision(infeasible={"chat": "one prompt alone takes 900ms"}))
    said = status(measured=seen)
    assert conditions(said)["SLOMet"] == ("False", "SLOInfeasible")
    assert message(said, "SLOMet") == "class chat: one prompt alone takes 900ms"
    assert said["slo"]["classes"][0]["infeasible"] == "one prompt alone takes 900ms"


def test_a_promise_that_cannot_be_kept_hides_none_that_is_missed() -> None:
    slo = Slo.model_validate({"classes": [{"name": name, "ttft": "500ms"} for name in ("chat", "deep")]})
    why = a_decision(4, 4, limited_by="Max", infeasible={"chat": "one prompt alone takes 900ms"})
    classes = (a_class("chat", ttft=0.9), a_class("deep", ttft=0.62))
    said = status(slo=slo, measured=measured(classes=classes, met={"chat": False, "deep": False}, decision=why))
    assert conditions(said)["SLOMet"] == ("False", "SLOInfeasible")
    assert message(said, "SLOMet") == (
        "class chat: one prompt alone takes 900ms; class deep: ttft P95 is 620ms, promised 500ms; "
        "scaling is limited by Max"
    )


ON_H100: dict[str, Any] = {
    "model": {"name": "GLM-4.5-Air", "source": "pvc://models/air"},
    "hardware": {
        "device": "cuda",
        "gpu": {"perNode": 8},
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    },
    "parallelism": {"tensor": 4, "expert": 4},
}
IMPOSSIBLE = Slo.model_validate({"classes": [{"name": "chat", "ttft": "1s", "itl": "1ms"}]})
WHY = "itl of 0.001 s is promised, and one request alone takes at least 0.00223 s on 4 x H100 SXM in bf16"
QUIET_CLASS = a_class(ttft=None, attainment=Input(State.IDLE), budget_left=value(1.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"measured": None, "observed": observed(), "reports": {}},
        {"measured": None},
        {"measured": measured(classes=(QUIET_CLASS,), met={}, decision=None)},
        {"measured": measured(metrics=NO_SERIES, source=None, classes=(), met={})},
        {"reports": {"chat-g0": a_report("serving")}},
        {"target": moving_to(replicas=0, **ON_H100), "observed": observed(), "reports": {}},
        {"measured": measured(met={"chat": True})},
    ],
    ids=["before any pod", "before any look", "idle", "no metrics", "older workers", "no group", "said to be kept"],
)
def test_a_promise_below_the_floor_of_the_plan_is_told_whatever_is_measured(changes: dict[str, Any]) -> None:
    said = status(**{"slo": IMPOSSIBLE, "target": moving_to(replicas=2, **ON_H100), **changes})
    assert conditions(said)["SLOMet"] == ("False", "SLOInfeasible")
    assert message(said, "SLOMet") == f"class chat: {WHY}"


def test_a_promise_below_the_floor_is_no_fault_of_a_group_and_told_as_an_event_at_once() -> None:
    said = status(slo=IMPOSSIBLE, target=moving_to(replicas=2, **ON_H100), measured=None)
    kinds = ("Planned", "GroupsReady", "Ready", "Degraded", "Stalled")
    assert [conditions(said)[kind][0] for kind in kinds] == ["True", "True", "True", "False", "False"]
    assert [event.reason for event in transitions({}, said)] == ["LayoutFound", "SLOInfeasible", "AllGroupsReady"]
    assert transitions(said, said) == []


def test_what_the_plan_says_and_what_is_measured_are_told_together() -> None:
    slo = Slo.model_validate(
        {"classes": [{"name": "chat", "itl": "1ms"}, {"name": "deep", "ttft": "500ms"}, {"name": "long", "ttft": "1s"}]}
    )
    decision = a_decision(4, 4, limited_by="Max", infeasible={"long": "prefill of a prompt takes 3 s"})
    classes = (a_class("chat"), a_class("deep", ttft=0.62), a_class("long", ttft=4.0))
    seen = measured(classes=classes, met={"chat": True, "deep": False, "long": False}, decision=decision)
    said = status(slo=slo, target=moving_to(replicas=2, **ON_H100), measured=seen)
    assert message(said, "SLOMet") == (
        f"class chat: {WHY}; class long: prefill of a prompt takes 3 s; "
        "class deep: ttft P95 is 620ms, promised 500ms; scaling is limited by Max"
    )
    assert [each.get("infeasible") for each in said["slo"]["classes"]] == [WHY, None, "prefill of a prompt takes 3 s"]
    again = status(slo=slo, target=moving_to(replicas=2, **ON_H100), measured=None, previous=said)
    assert message(again, "SLOMet") == message(said, "SLOMet"), "an operator that has just started says it again"


def test_a_promise_that_was_missed_and_is_now_below_the_floor_is_told_as_that() -> None:
    before = status(measured=measured(met={"chat": False}, classes=(a_class(ttft=0.7),)))
    said = status(slo=IMPOSSIBLE, target=moving_to(replicas=2, **ON_H100), measured=None, previous=before)
    assert conditions(said)["SLOMet"] == ("False", "SLOInfeasible")


def test_on_hardware_that_nobody_knows_nothing_is_below_a_floor() -> None:
    assert conditions(status(slo=IMPOSSIBLE, measured=None))["SLOMet"] == ("Unknown", "MetricsMissing")


def test_without_traffic_nothing_is_shown_and_nothing_is_claimed() -> None:
    idle = Input(State.IDLE)
    quiet = a_class(ttft=None, attainment=idle, budget_left=value(1.0))
    said = status(measured=measured(latency={"ttft": idle}, classes=(quiet,), met={}))
    assert "latency" not in said, "an apply that empties an object leaves null there, which the CRD refuses"
    assert said["slo"] == {"budgetLeft": "100%", "classes": [{"name": "chat", "budgetLeft": "100%"}]}
    assert conditions(said)["SLOMet"] == ("Unknown", "NoTraffic")


def test_latencies_that_nobody_measures_are_no_lack_of_traffic() -> None:
    unknown = a_class(ttft=None, status_latency={"ttft": Input(State.UNKNOWN)}, attainment=Input(State.UNKNOWN))
    said = status(measured=measured(latency={}, classes=(unknown,), met={}))
    assert conditions(said)["SLOMet"] == ("Unknown", "MetricsMissing")


def test_what_cannot_be_measured_is_not_claimed_to_be_kept() -> None:
    said = status(measured=measured(metrics=NO_SERIES, source=None, latency={}, classes=(), met={}))
    assert conditions(said)["SLOMet"] == ("Unknown", "NoSeries")
    assert conditions(said)["MetricsAvailable"] == ("False", "NoSeries")
    assert message(said, "MetricsAvailable") == NO_SERIES.message


def test_workers_of_an_older_version_are_named() -> None:
    reports = {"chat-g0": a_report("serving", slo_digest="x"), "chat-g1": a_report("serving")}
    said = status(reports=reports)
    assert conditions(said)["SLOMet"] == ("Unknown", "OlderWorkers")
    assert "chat-g1" in message(said, "SLOMet")
    assert "chat-g0" not in message(said, "SLOMet")


REFUSAL = {"chat-g1": "pod chat-g1-0 refused the promises with 422: there are 9 classes"}


def test_a_worker_that_refuses_the_promises_is_named_with_its_answer() -> None:
    said = status(promises_refused=REFUSAL)
    assert conditions(said)["SLOMet"] == ("Unknown", "PromisesRefused"), (
        "nothing is kept by who measures something else"
    )
    assert message(said, "SLOMet") == "chat-g1: pod chat-g1-0 refused the promises with 422: there are 9 classes"


def test_a_refusal_hides_no_promise_that_is_missed() -> None:
    said = status(promises_refused=REFUSAL, measured=measured(met={"chat": False}, classes=(a_class(ttft=0.62),)))
    assert conditions(said)["SLOMet"] == ("False", "SLOMissed")
    assert message(said, "SLOMet").startswith(
        "class chat: ttft P95 is 620ms, promised 500ms; chat-g1: pod chat-g1-0 ref"
    )
    again = status(promises_refused=REFUSAL, measured=None, previous=said)
    assert message(again, "SLOMet") == message(said, "SLOMet"), "once is enough"


def test_promises_that_workers_do_not_let_go_of_are_told_too() -> None:
    said = status(slo=Slo(), promises_refused=REFUSAL)
    assert conditions(said)["SLOMet"] == ("Unknown", "PromisesRefused")


def test_a_worker_that_does_not_serve_yet_refuses_nothing() -> None:
    reports = {"chat-g0": a_report("serving", slo_digest="x"), "chat-g1": a_report("starting", slo_digest=None)}
    assert conditions(status(promises_refused=REFUSAL, reports=reports))["SLOMet"] == ("True", "SLOKept")


def test_of_many_refusals_the_first_are_quoted() -> None:
    reports = {f"chat-g{index}": a_report("serving", slo_digest="x") for index in range(9)}
    words = message(status(promises_refused=dict.fromkeys(reports, "no " * 200), reports=reports), "SLOMet")
    assert [f"chat-g{index}: no" in words for index in range(4)] == [True, True, True, False]
    assert words.endswith(" (and 6 more)")


def test_an_operator_that_has_just_started_says_what_was_said_before_it() -> None:
    before = status(measured=measured(met={"chat": False}, classes=(a_class(ttft=0.7),)))
    said = status(measured=None, previous=before)
    assert (said["latency"], said["slo"]) == (before["latency"], before["slo"])
    assert conditions(said)["SLOMet"] == ("False", "SLOMissed")
    assert message(said, "SLOMet") == message(before, "SLOMet")


def test_who_asks_for_nothing_is_measured_by_nobody() -> None:
    said = status(slo=Slo(), is_measured=False, measured=None)
    assert "latency" not in said
    assert "slo" not in said
    assert conditions(said)["MetricsAvailable"] == ("Unknown", "NotMeasured")
    assert conditions(said)["SLOMet"] == ("Unknown", "NoPromise")


def test_promises_that_cannot_be_read_say_so() -> None:
    fault = Trouble("slo", "InvalidSpec", "spec.slo.classes.0.ttft: wrong")
    assert conditions(status(slo=None, slo_fault=fault, measured=None))["SLOMet"] == ("Unknown", "InvalidSpec")


def test_of_no_groups_nothing_is_promised() -> None:
    said = status(target=moving_to(replicas=0), observed=observed(), reports={}, measured=measured(met={}))
    assert conditions(said)["SLOMet"] == ("Unknown", "ScaledToZero")


MISSED = measured(met={"chat": False}, classes=(a_class(ttft=0.7),))
AWAY = measured(metrics=Trouble("metrics", "MetricsUnreachable", "no answer"), source=None)
FALLBACK = measured(metrics=Trouble("metrics", "MetricsFallback", "no answer; asks"), source="Workers")
QUIET = measured(met={}, classes=(a_class(ttft=None),))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (measured(), MISSED, ["SLOMissed"]),
        (MISSED, measured(), ["SLOKept"]),
        (measured(), QUIET, []),
        (measured(), AWAY, ["MetricsUnreachable"]),
        (AWAY, measured(), ["MetricsRead"]),
        (measured(), FALLBACK, ["MetricsFallback"]),
        (FALLBACK, measured(), ["MetricsRead"]),
        (MISSED, MISSED, []),
    ],
)
def test_what_begins_or_ends_is_told_once(before: Any, after: Any, told: list[str]) -> None:
    first, then = status(measured=before), status(measured=after)
    assert [event.reason for event in transitions(first, then)] == told


def test_the_beginning_and_the_end_of_a_refusal_are_told() -> None:
    kept, refused = status(), status(promises_refused=REFUSAL)
    told = [transitions(*pair) for pair in ((kept, refused), (refused, refused), (refused, kept))]
    assert [[(event.reason, event.is_bad) for event in events] for events in told] == [
        [("PromisesRefused", True)],
        [],
        [("SLOKept", False)],
    ]


def test_a_first_status_tells_nothing_of_metrics() -> None:
    assert [event.reason for event in transitions({}, status())] == ["LayoutFound", "AllGroupsReady"]


def test_a_group_that_is_not_ready_keeps_being_the_only_reason_of_ready() -> None:
    said = status(observed=observed(a_group(0), a_group(1, ready=False)), measured=MISSED)
    assert conditions(said)["Ready"][0] == "False"
    assert conditions(said)["Ready"][1] != "SLOMissed"


def test_what_another_version_said_and_we_cannot_read_is_forgotten() -> None:
    condition = {"type": "SLOMet", "status": "False", "reason": "SLOBentALittle", "message": "x"}
    previous = {"latency": {"ttftP95": 3}, "slo": {"classes": "many"}, "conditions": [condition]}
    said = status(measured=None, previous=previous)
    assert "latency" not in said
    assert said["slo"] == {"classes": []}
    assert conditions(said)["SLOMet"] == ("Unknown", "MetricsMissing")
