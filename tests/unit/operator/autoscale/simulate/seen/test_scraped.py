import pytest

from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.run import simulate
from glm_operator.autoscale.simulate.seen.faults import Faults
from glm_operator.autoscale.simulate.seen.scraped import Away, View
from unit.operator.autoscale.simulate.simulate_builders import Told, a_setup


def views(faults: Faults, at_s: tuple[float, ...], **changes: object) -> list[tuple[float, object]]:
    """What a law saw of running and received requests at these moments, by group; None where Prometheus was away."""
    found: list[tuple[float, object]] = []

    def wants(view: View, _: Situation) -> int:
        if any(abs(view.now_s - each) < 2.5 for each in at_s):
            try:
                found.append((view.now_s, view.latest("glm_requests_received_total")))
            except Away:
                found.append((view.now_s, None))
        return 2

    simulate(a_setup(faults=faults, **changes), Told(wants))
    return found


def test_both_groups_are_seen_and_share_the_requests() -> None:
    ((_, seen),) = views(Faults(), (400.0,))
    assert isinstance(seen, dict)
    assert sorted(seen) == ["g0", "g1"]
    assert sum(seen.values()) == pytest.approx(400, abs=8)


def test_prometheus_that_is_away_answers_nothing_and_misses_samples() -> None:
    before, during, after = views(Faults(away=((200.0, 320.0),)), (190.0, 260.0, 330.0))
    assert before[1] is not None
    assert during[1] is None
    assert after[1] is not None


def test_a_lost_scrape_hides_a_group_until_the_next() -> None:
    seen = views(Faults(lost_share=0.5), tuple(float(s) for s in range(50, 600, 5)))
    sizes = [len(each) for _, each in seen if isinstance(each, dict)]
    assert {0, 1, 2} == set(sizes)


def test_a_frozen_group_shows_the_same_values_freshly_scraped() -> None:
    early, late = views(Faults(frozen=((200.0, 500.0),)), (300.0, 450.0))
    assert isinstance(early[1], dict)
    assert isinstance(late[1], dict)
    assert late[1]["g0"] == early[1]["g0"]
    assert late[1]["g1"] > early[1]["g1"]


def test_a_silent_group_is_not_there_and_serves_all_the_same() -> None:
    during, after = views(Faults(silent=((200.0, 400.0),)), (300.0, 450.0))
    assert isinstance(during[1], dict)
    assert isinstance(after[1], dict)
    assert list(during[1]) == ["g1"]
    assert after[1]["g0"] > 100


def test_rates_averages_and_quantiles_are_those_of_the_window() -> None:
    found: dict[str, object] = {}

    def wants(view: View, _: Situation) -> int:
        if view.now_s > 500:
            found["rate"] = sum(view.rate("glm_requests_received_total", 60.0).values())
            found["p50"] = view.quantile("glm_time_to_first_token_seconds", 0.5, 300.0)
            found["none"] = view.quantile("glm_time_to_first_token_seconds", 0.5, 1.0)
        return 2

    result = simulate(a_setup(), Told(wants))
    assert found["rate"] == pytest.approx(1.0, abs=0.1)
    assert found["none"] is None
    p50 = found["p50"]
    assert isinstance(p50, float)
    true = sorted(request.latency["ttft"] for request in result.requests)[300]
    assert 0.1 <= true <= 0.25  # both within the bucket from 0.1 to 0.25
    assert 0.1 <= p50 <= 0.25
