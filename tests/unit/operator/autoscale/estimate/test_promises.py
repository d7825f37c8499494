import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.estimate.promises import Promises, out_of_reach, promises
from glm_operator.autoscale.estimate.rates import Rates
from glm_operator.autoscale.signals import ClassSignals, Input, Signals, State
from unit.operator.autoscale.law_builders import a_situation, a_slo, knowing, slow

RATES = knowing().rates  # prefill of a prompt takes 0.1 s, a step of one request 20.5 ms


def found(
    slo: Slo,
    *classes: ClassSignals,
    rates: Rates = RATES,
    floor: dict[str, float] | None = None,
    before: frozenset[tuple[str, str]] = frozenset(),
) -> Promises:
    signals = Signals(groups={}, expected=frozenset(), classes=classes)
    return promises(slo, signals, rates, a_situation(1, floor_s=floor or {}), before)


@pytest.mark.parametrize(
    ("given", "is_feasible"),
    [
        ({"ttft": "90ms"}, False),
        ({"ttft": "110ms"}, True),
        ({"e2e": "90ms"}, False),
        ({"itl": "20ms"}, False),
        ({"itl": "22ms"}, True),
    ],
)
def test_a_promise_below_what_one_request_alone_takes_is_infeasible(given: dict[str, str], is_feasible: bool) -> None:
    assert (found(a_slo(**given)).infeasible == {}) == is_feasible


def test_nothing_is_infeasible_before_it_was_measured() -> None:
    assert found(a_slo(ttft="1ms", itl="1ms"), rates=Rates()).infeasible == {}


def test_below_the_floor_of_the_planner_nothing_need_be_measured() -> None:
    floor = {"ttft": 0.002, "ttfa": 0.002, "itl": 0.002, "e2e": 0.002}
    slo = a_slo(ttft="1s", itl="1ms")
    around = a_situation(1, floor_s=floor, floor_on="4 x H100 SXM in bf16")
    said = "itl of 0.001 s is promised, and one request alone takes at least 0.002 s on 4 x H100 SXM in bf16"

    judged = promises(slo, Signals(groups={}, expected=frozenset()), Rates(), around, frozenset())

    assert judged.infeasible == {"chat": said}
    assert (judged.ttft_s, judged.itl_s) == (1.0, None)
    assert out_of_reach(slo, floor, "4 x H100 SXM in bf16") == {"chat": said}


@pytest.mark.parametrize("floor", [{}, {"itl": 0.001}, {"itl": float("nan")}, {"itl": float("inf")}, {"ttft": 9.0}])
def test_a_promise_that_is_not_below_a_known_floor_is_within_reach(floor: dict[str, float]) -> None:
    assert out_of_reach(a_slo(itl="1ms"), floor, "") == {}


def test_all_that_is_out_of_reach_is_said_class_by_class() -> None:
    slo = Slo.model_validate(
        {
            "classes": [
                {"name": "a", "ttft": "1ms", "itl": "1ms"},
                {"name": "b", "itl": "1s"},
                {"name": "c", "e2e": "2ms"},
            ]
        }
    )
    found = out_of_reach(slo, dict.fromkeys(("ttft", "itl", "e2e"), 0.01), "")
    assert list(found) == ["a", "c"]
    assert found["a"] == (
        "ttft of 0.001 s is promised, and one request alone takes at least 0.01 s; "
        "itl of 0.001 s is promised, and one request alone takes at least 0.01 s"
    )


def test_a_class_is_judged_by_its_own_prompts() -> None:
    short = ClassSignals(name="chat", prompt_tokens=Input(State.VALUE, 10.0))

    assert found(a_slo(ttft="50ms"), short).infeasible == {}
    assert found(a_slo(ttft="50ms")).infeasible != {}


def test_one_promise_that_cannot_be_kept_leaves_the_others() -> None:
    kept = found(a_slo(ttft="50ms", itl="80ms"))

    assert (kept.ttft_s, kept.itl_s) == (None, 0.08)
    assert "ttft of 0.05 s is promised" in kept.infeasible["chat"]


def test_an_infeasible_promise_does_not_flap_at_its_floor() -> None:
    was = frozenset({("chat", "ttft")})

    assert found(a_slo(ttft="105ms")).infeasible == {}
    assert found(a_slo(ttft="105ms"), before=was).infeasible != {}
    assert found(a_slo(ttft="115ms"), before=was).infeasible == {}


def test_the_worst_percentile_against_its_promise_counts() -> None:
    assert found(a_slo(), slow(3.0)).worst == pytest.approx(1.5)


@pytest.mark.parametrize("count", [0.0, 19.0, float("nan")])
def test_a_percentile_of_few_requests_says_nothing(count: float) -> None:
    assert found(a_slo(), slow(3.0, count=count)).worst is None


@pytest.mark.parametrize(("burn", "ended", "is_fast"), [(6.0, 100.0, True), (5.0, 100.0, False), (50.0, 10.0, False)])
def test_a_budget_burns_fast_from_six_times_an_even_burn_of_enough_requests(
    burn: float, ended: float, is_fast: bool
) -> None:
    chat = ClassSignals(name="chat", fast_burn=Input(State.VALUE, burn), requests_ended=ended)

    assert found(a_slo(), chat).burns_fast == is_fast


def test_the_tightest_promise_of_all_classes_is_kept() -> None:
    slo = Slo.model_validate(
        {"classes": [{"name": "chat", "ttft": "2s", "percentile": 90}, {"name": "deep", "ttft": "9s", "itl": "80ms"}]}
    )

    kept = found(slo)

    assert (kept.ttft_s, kept.ttft_percentile, kept.itl_s, kept.wait_s) == (2.0, 90, 0.08, 2.0)
