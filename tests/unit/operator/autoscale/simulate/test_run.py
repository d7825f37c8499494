from dataclasses import replace

import pytest

from glm_operator.api.scaling import Scaling
from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.law import Fixed
from glm_operator.autoscale.simulate.run import Result, simulate
from glm_operator.autoscale.simulate.trace import Arrival
from unit.operator.autoscale.simulate.simulate_builders import Told, a_setup


def test_every_request_ends_and_groups_cost_their_time() -> None:
    result = simulate(a_setup(), Fixed(2))
    assert all(request.ended_at is not None for request in result.requests)
    assert result.gpu_seconds == pytest.approx(2 * 600)


def test_gpus_count_for_each_group() -> None:
    assert simulate(a_setup(gpus_per_group=8), Fixed(2)).gpu_seconds == pytest.approx(16 * 600)


def test_equal_setups_give_equal_results() -> None:
    setup = a_setup(cold_start_s=(40.0, 60.0, 90.0))

    def run() -> Result:
        return simulate(setup, Told(lambda view, _: 2 + int(view.now_s // 100) % 3))

    assert run().points == run().points


def test_a_new_group_serves_after_its_cold_start_and_costs_from_its_creation() -> None:
    result = simulate(a_setup(), Told(lambda view, _: 3 if view.now_s > 100 else 2))
    (new,) = [life for life in result.lives if life.created_s > 0]
    assert new.created_s == pytest.approx(100, abs=6)
    assert new.ready_s == new.created_s + 60.0
    assert result.gpu_seconds == pytest.approx(1200 + 600 - new.created_s)
    assert [point.serving for point in result.points if point.at_s >= new.ready_s + 5] == [3] * 87


def test_a_removed_group_finishes_its_requests_first() -> None:
    arrivals = tuple(Arrival(i * 0.5, 500, 3000) for i in range(100))
    result = simulate(
        a_setup(arrivals=arrivals, start_groups=2), Told(lambda view, _: 1 if view.now_s > 60 else 2, period_s=10)
    )
    (gone,) = [life for life in result.lives if life.gone_s is not None]
    assert gone.gone_s is not None
    assert gone.gone_s > 100
    assert not any(request.has_failed for request in result.requests)


def test_groups_that_start_are_removed_first() -> None:
    result = simulate(a_setup(), Told(lambda view, _: 5 if 50 < view.now_s < 70 else 2))
    assert sorted(life.name for life in result.lives if life.gone_s is not None) == ["g2", "g3", "g4"]
    assert max(point.draining for point in result.points) == 0


def test_the_bounds_of_the_deployment_hold_for_every_law() -> None:
    scaling = Scaling.model_validate({"min": 2, "max": 4})
    high = simulate(a_setup(scaling=scaling), Fixed(100))
    low = simulate(a_setup(scaling=scaling), Fixed(0))
    assert max(point.desired for point in high.points) == 4
    assert min(point.desired for point in low.points) == 2


def test_observe_decides_and_changes_nothing() -> None:
    scaling = Scaling.model_validate({"mode": "Observe", "min": 1, "max": 9})
    result = simulate(a_setup(scaling=scaling), Fixed(7))
    assert {point.desired for point in result.points} == {2}
    assert [change.desired for change in result.changes] == [7]


def test_a_killed_group_is_replaced_and_what_streamed_has_failed() -> None:
    result = simulate(a_setup(rps=2.0, kills=(300.0,)), Fixed(2))
    assert any(request.has_failed for request in result.requests)
    assert all(request.ended_at is not None for request in result.requests)
    assert [point.serving for point in result.points if 310 < point.at_s < 350] == [1] * 7
    assert result.points[-1].serving == 2


def test_requests_wait_while_no_group_serves() -> None:
    result = simulate(a_setup(start_groups=1, kills=(300.0,)), Fixed(1))
    waited = [r for r in result.requests if 301 < r.arrival.at_s < 350]
    assert waited
    assert all(r.latency["ttft"] > 10 for r in waited)


def test_a_law_never_sees_what_comes() -> None:
    seen: dict[str, list[float]] = {"short": [], "long": []}

    def run(name: str, extra: tuple[Arrival, ...]) -> None:
        setup = a_setup()

        def wants(view: object, _: object) -> int:
            seen[name].append(sum(view.latest("glm_requests_received_total").values()))  # type: ignore[attr-defined]
            return 2

        simulate(replace(setup, arrivals=(*setup.arrivals[:300], *extra), duration_s=290.0), Told(wants))

    run("short", ())
    run("long", tuple(Arrival(301.0 + i / 100, 1000, 200) for i in range(1000)))
    assert seen["short"] == seen["long"]


def test_a_request_that_never_fits_is_refused_before_the_run() -> None:
    with pytest.raises(InputError, match="the model takes 131072"):
        simulate(a_setup(arrivals=(Arrival(0.0, 200_000, 1),)), Fixed(1))


def test_windows_and_a_gpu_budget_bound_a_law_as_in_the_operator() -> None:
    window = {"name": "night", "cron": "0 0 * * *", "duration": "5m", "min": 3, "max": 6}
    scaling = Scaling.model_validate({"min": 1, "max": 2, "gpuBudget": 10, "schedules": [window]})

    high = simulate(a_setup(scaling=scaling, gpus_per_group=2), Fixed(100))

    assert {point.desired for point in high.points if 10 < point.at_s < 295} == {5}
    assert high.points[-1].desired == 2
