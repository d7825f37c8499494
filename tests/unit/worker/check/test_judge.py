"""Verdicts on states that are made here: what must be found, and what must not."""

import math

import pytest
import torch

from glm_worker.check.bounds import bounds_of
from glm_worker.check.judge import Verdict, judged
from glm_worker.check.states import Routing, States

KINDS = ["dense", "experts", "experts"]
FP32, BF16 = torch.float32, torch.bfloat16


def some_states(num_tokens: int = 50) -> States:
    generator = torch.Generator().manual_seed(3)
    hidden = [torch.randn(num_tokens, 32, generator=generator) for _ in range(len(KINDS) + 1)]
    return States(hidden, 3 * torch.randn(20, 64, generator=generator))


def moved(states: States, place: int, share: float, tokens: slice = slice(None)) -> States:
    """Return the states with what a place returns moved by a share of its size, for these tokens."""
    hidden = [x_TD.clone() for x_TD in states.hidden_TD]
    hidden[place][tokens] *= 1 + share
    return States(hidden, states.logits_SV)


def verdict_of(ours: States, fed: States, alone: States | None = None, dtype: torch.dtype = FP32) -> Verdict:
    return judged(ours, alone or fed, fed, bounds_of(dtype, dtype), KINDS)


def test_equal_states_are_the_same() -> None:
    states = some_states()
    verdict = verdict_of(states, states)
    assert verdict.is_within
    assert [place.max_abs for place in verdict.places] == [0.0] * 5
    assert verdict.greedy.num_equal == verdict.greedy.num_places == 20


@pytest.mark.parametrize(("dtype", "rounding"), [(FP32, 3e-6), (BF16, 1e-2)])
def test_rounding_is_allowed(dtype: torch.dtype, rounding: float) -> None:
    states = some_states()
    for place in range(len(KINDS) + 1):
        assert verdict_of(moved(states, place, rounding), states, dtype=dtype).is_within


@pytest.mark.parametrize(("dtype", "mistake"), [(FP32, 1e-3), (BF16, 0.2)])
def test_the_first_layer_that_differs_is_named(dtype: torch.dtype, mistake: float) -> None:
    states = some_states()
    ours = moved(moved(states, 2, mistake), 3, mistake)
    first = verdict_of(ours, states, dtype=dtype).first_that_differs
    assert first is not None
    assert first.name == "layer 1 (experts)"


def test_an_embedding_that_differs_comes_before_all_layers() -> None:
    states = some_states()
    first = verdict_of(moved(states, 0, 1e-3), states).first_that_differs
    assert first is not None
    assert first.name == "embedding"


def routed(states: States, leads_T: torch.Tensor) -> States:
    """Return the states with routers in the layers of experts, whose choices lead by this much."""
    routing = Routing(torch.zeros(len(leads_T), 2, dtype=torch.int64), leads_T)
    return States(states.hidden_TD, states.logits_SV, [None if kind == "dense" else routing for kind in KINDS])


@pytest.mark.parametrize(("num_tokens", "is_within"), [(4, True), (6, False)])
def test_a_token_in_ten_may_be_routed_otherwise(num_tokens: int, *, is_within: bool) -> None:
    states = routed(some_states(), torch.zeros(50))
    ours = moved(states, 2, 0.3, tokens=slice(num_tokens))
    assert verdict_of(ours, states).is_within is is_within


@pytest.mark.parametrize(("dtype", "mistake"), [(FP32, 1e-3), (BF16, 0.2)])
def test_one_token_that_is_off_names_its_layer_where_its_experts_are_clear(dtype: torch.dtype, mistake: float) -> None:
    leads_T = torch.zeros(50)
    leads_T[7] = 0.1
    states = routed(some_states(), leads_T)
    assert verdict_of(moved(states, 2, mistake, tokens=slice(8, 9)), states, dtype=dtype).is_within
    verdict = verdict_of(moved(states, 2, mistake, tokens=slice(7, 8)), states, dtype=dtype)
    assert verdict.first_that_differs is not None
    assert verdict.first_that_differs.name == "layer 1 (experts)"
    assert [place.num_singly for place in verdict.places] == [50, 50, 1, 1, 20]


@pytest.mark.parametrize(("place", "name"), [(0, "embedding"), (1, "layer 0 (dense)")])
def test_one_token_that_is_off_is_found_where_nothing_is_chosen(place: int, name: str) -> None:
    states = routed(some_states(), torch.zeros(50))
    first = verdict_of(moved(states, place, 0.2, tokens=slice(7, 8)), states, dtype=BF16).first_that_differs
    assert first is not None
    assert first.name == name


def test_a_state_that_is_no_number_differs() -> None:
    states = some_states()
    ours = moved(states, 3, math.nan)
    first = verdict_of(ours, states).first_that_differs
    assert first is not None
    assert first.name == "layer 2 (experts)"


def test_a_small_update_of_a_large_residual_is_judged_by_its_own_size() -> None:
    states = some_states()
    hidden = [x_TD.clone() for x_TD in states.hidden_TD]
    hidden[2] = hidden[1] + 0.01 * torch.randn(50, 32, generator=torch.Generator().manual_seed(5))
    fed = States(hidden, states.logits_SV)
    ours = States([x_TD.clone() for x_TD in hidden], states.logits_SV)
    ours.hidden_TD[2] = hidden[1] + 1.01 * (hidden[2] - hidden[1])  # 1e-4 of the residual
    first = verdict_of(ours, fed).first_that_differs
    assert first is not None
    assert first.name == "layer 1 (experts)"


def test_logits_that_drift_apart_are_found_though_each_layer_is_right() -> None:
    ours = some_states()
    alone = States(
        ours.hidden_TD, ours.logits_SV + 0.1 * torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
    )
    verdict = verdict_of(ours, ours, alone)
    assert verdict.first_that_differs is None
    assert not verdict.is_within
    assert verdict.logits.differs


def test_another_choice_counts_only_where_it_is_clear() -> None:
    logits = torch.zeros(2, 64)
    logits[:, :] = torch.randn(64, generator=torch.Generator().manual_seed(2))
    logits[0, 7], logits[0, 9] = 10.0, 10.0 + 1e-6  # as good as equal
    logits[1, 7], logits[1, 9] = 5.0, 10.0
    hidden = some_states().hidden_TD
    swapped = logits.clone()
    swapped[0, 7], swapped[0, 9] = logits[0, 9].item(), logits[0, 7].item()
    greedy = verdict_of(States(hidden, swapped), States(hidden, logits)).greedy
    assert (greedy.num_places, greedy.num_equal, greedy.num_clear, greedy.num_clear_equal) == (2, 1, 1, 1)


def test_a_coarser_cache_has_the_bounds_of_its_type() -> None:
    assert bounds_of(FP32, BF16) == bounds_of(BF16, BF16) != bounds_of(FP32, FP32)
