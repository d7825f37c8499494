"""Router and experts in C against what they replace in torch, in every instruction set that this CPU has."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glm_worker.kernels.cpu.experts import ExpertWeights, feed_forward, route
from glm_worker.kernels.cpu.library import Library, Team, available_isas, load
from glm_worker.kernels.grouped_experts import grouped_experts_plain
from glm_worker.parallel.dispatch import mix, sort_by_expert

FP32, BF16 = torch.float32, torch.bfloat16
DTYPES = [FP32, BF16]
ISAS = available_isas()
TEAMS = {num_threads: Team(num_threads) for num_threads in (1, 2, 3, 4)}


@pytest.fixture(params=ISAS)
def library(request: pytest.FixtureRequest) -> Library:
    return load(request.param)


def random_experts(
    num: int, hidden: int, width: int, shared: int = 0, dtype: torch.dtype = FP32, first_expert: int = 0
) -> ExpertWeights:
    def made(*shape: int) -> Tensor:
        weights: Tensor = (torch.randn(*shape) * shape[-1] ** -0.5).to(dtype)
        return weights

    return ExpertWeights(
        made(num, 2 * width, hidden),
        made(num, hidden, width),
        first_expert,
        made(2 * shared, hidden) if shared else None,
        made(hidden, shared) if shared else None,
    )


def random_choice(num_tokens: int, num_experts: int, num_chosen: int) -> tuple[Tensor, Tensor]:
    ids = [torch.randperm(num_experts)[:num_chosen].sort().values for _ in range(num_tokens)]
    chosen = torch.stack(ids) if ids else torch.empty(0, num_chosen)
    return chosen.int(), torch.rand(num_tokens, num_chosen) + 0.1


def twin(x_TD: Tensor, expert_ids_TK: Tensor, weights_TK: Tensor, experts: ExpertWeights) -> Tensor:
    """Return what torch makes of it in fp64: exact beside either."""
    local = range(experts.first_expert, experts.first_expert + len(experts.gate_up_L2ID))
    sent = sort_by_expert(x_TD.double(), expert_ids_TK.long(), weights_TK, local)
    y_RD = grouped_experts_plain(sent.x_RD, sent.ends_L, experts.gate_up_L2ID.double(), experts.down_LDI.double())
    y_TKD = y_RD.index_select(0, sent.row_TK.flatten()).view(*expert_ids_TK.shape, x_TD.shape[-1])
    y_TD = torch.einsum("tkd,tk->td", y_TKD, weights_TK.double())
    if experts.shared_gate_up_2SD is not None and experts.shared_down_DS is not None:
        gate, up = F.linear(x_TD.double(), experts.shared_gate_up_2SD.double()).chunk(2, dim=-1)
        y_TD = y_TD + F.linear(F.silu(gate) * up, experts.shared_down_DS.double())
    return y_TD


def tolerance(library: Library, dtype: torch.dtype) -> float:
    """Return how far an element may be off, against the largest one: activations are rounded to bf16 where it says."""
    return 1.5e-2 if dtype is BF16 and library.has_bf16_products else 2e-6


def assert_close(library: Library, dtype: torch.dtype, y_TD: Tensor, expected_TD: Tensor) -> None:
    assert y_TD.shape == expected_TD.shape
    off = (y_TD.double() - expected_TD).abs().max().item() if y_TD.numel() else 0.0
    largest = expected_TD.abs().max().item() if y_TD.numel() else 0.0
    assert off <= tolerance(library, dtype) * largest, f"off by {off:.2e} where the largest is {largest:.2e}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("num_tokens", [0, 1, 2, 3, 5, 33, 150])
@pytest.mark.parametrize(
    ("hidden", "width", "shared"), [(64, 32, 32), (20, 100, 0), (100, 20, 36), (48, 7, 1), (96, 51, 130)]
)
def test_experts_say_what_torch_says(
    library: Library, dtype: torch.dtype, num_threads: int, num_tokens: int, hidden: int, width: int, shared: int
) -> None:
    torch.manual_seed(num_tokens)
    experts = random_experts(6, hidden, width, shared, dtype)
    x_TD, (ids_TK, weights_TK) = torch.randn(num_tokens, hidden), random_choice(num_tokens, 6, 3)
    y_TD = feed_forward(TEAMS[num_threads], x_TD, ids_TK, weights_TK, experts, library)
    assert_close(library, dtype, y_TD, twin(x_TD, ids_TK, weights_TK, experts))


@pytest.mark.parametrize("dtype", DTYPES)
def test_experts_of_the_shape_of_a_real_layer_say_what_torch_says(library: Library, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    experts = random_experts(8, 768, 384, 384, dtype)
    x_TD, (ids_TK, weights_TK) = torch.randn(70, 768), random_choice(70, 8, 4)
    y_TD = feed_forward(TEAMS[2], x_TD, ids_TK, weights_TK, experts, library)
    assert_close(library, dtype, y_TD, twin(x_TD, ids_TK, weights_TK, experts))


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_tokens_may_go_to_one_expert(library: Library, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    experts = random_experts(4, 64, 48, 0, dtype)
    x_TD, ids_T1 = torch.randn(131, 64), torch.full((131, 1), 2, dtype=torch.int32)
    y_TD = feed_forward(TEAMS[2], x_TD, ids_T1, torch.ones(131, 1), experts, library)
    assert_close(library, dtype, y_TD, twin(x_TD, ids_T1, torch.ones(131, 1), experts))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_token_without_an_expert_here_gets_zeros(library: Library, dtype: torch.dtype) -> None:
    experts = random_experts(4, 32, 16, 0, dtype, first_expert=8)
    ids_TK = torch.tensor([[0, 7], [12, 15], [7, 12]], dtype=torch.int32)
    y_TD = feed_forward(TEAMS[2], torch.full((3, 32), torch.nan), ids_TK, torch.ones(3, 2), experts, library)
    assert y_TD.eq(0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_ranks_add_up_to_the_whole_layer(library: Library, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    whole = random_experts(8, 64, 24, 40, dtype)
    x_TD, (ids_TK, weights_TK) = torch.randn(29, 64), random_choice(29, 8, 3)
    gate_up, down = whole.gate_up_L2ID, whole.down_LDI
    first = ExpertWeights(gate_up[:4], down[:4], 0, whole.shared_gate_up_2SD, whole.shared_down_DS)
    second = ExpertWeights(gate_up[4:], down[4:], 4)
    parts = [feed_forward(TEAMS[1], x_TD, ids_TK, weights_TK, rank, library) for rank in (first, second)]
    assert_close(library, dtype, parts[0] + parts[1], twin(x_TD, ids_TK, weights_TK, whole))


@given(data=st.data(), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_the_bits_of_a_token_are_its_own(isa: str, dtype: torch.dtype, data: st.DataObject, seed: int) -> None:
    """Whoever else is in the step, in whatever order, by however many threads: also the router's."""
    torch.manual_seed(seed)
    library, num_experts = load(isa), data.draw(st.integers(1, 20))
    hidden, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 60))
    num_chosen, num_tokens = data.draw(st.integers(1, num_experts)), data.draw(st.integers(1, 90))
    experts = random_experts(num_experts, hidden, width, data.draw(st.integers(0, 40)), dtype)
    x_TD, weight_ED, bias_E = (
        torch.randn(num_tokens, hidden),
        torch.randn(num_experts, hidden),
        torch.randn(num_experts),
    )

    def layer(x_TD: Tensor, team: Team) -> tuple[Tensor, ...]:
        weights_TK, ids_TK = route(
            team, x_TD, weight_ED, bias_E, num_chosen, is_normalized=True, scale=1.5, library=library
        )
        return feed_forward(team, x_TD, ids_TK, weights_TK, experts, library), weights_TK, ids_TK

    together = layer(x_TD, TEAMS[data.draw(st.sampled_from(sorted(TEAMS)))])
    some = torch.tensor(data.draw(st.lists(st.integers(0, num_tokens - 1), min_size=1, max_size=40)))
    apart = layer(x_TD[some], TEAMS[data.draw(st.sampled_from(sorted(TEAMS)))])
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one[some], other)


def test_every_instruction_set_with_fused_products_gives_the_same_bits_of_fp32() -> None:
    torch.manual_seed(3)
    experts = random_experts(6, 100, 36, 20)
    x_TD, (ids_TK, weights_TK) = torch.randn(40, 100), random_choice(40, 6, 2)
    fused = [isa for isa in ISAS if isa != "generic"]
    answers = [feed_forward(TEAMS[2], x_TD, ids_TK, weights_TK, experts, load(isa)) for isa in fused]
    assert all(torch.equal(answers[0], answer) for answer in answers)


def test_a_token_that_is_not_a_number_spoils_itself_only(library: Library) -> None:
    torch.manual_seed(4)
    experts = random_experts(4, 33, 18, 10, BF16)
    x_TD, weight_ED, bias_E = torch.randn(9, 33), torch.randn(4, 33), torch.randn(4)
    broken_TD = x_TD.clone()
    broken_TD[4, 7] = torch.nan
    outputs = []
    for rows_TD in (x_TD, broken_TD):
        weights_TK, ids_TK = route(
            TEAMS[2], rows_TD, weight_ED, bias_E, 2, is_normalized=True, scale=1.0, library=library
        )
        assert ids_TK.ge(0).all()
        assert ids_TK.lt(4).all()
        outputs.append(feed_forward(TEAMS[2], rows_TD, ids_TK, weights_TK, experts, library))
    others = torch.arange(9) != 4
    assert torch.equal(outputs[0][others], outputs[1][others])
    assert outputs[1][4].isnan().all()


def torch_route(
    x_TD: Tensor, weight_ED: Tensor, bias_E: Tensor, num_chosen: int, *, is_normalized: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Return what model/moe.py's Router computes, in fp64."""
    scores_TE = F.linear(x_TD.double(), weight_ED.double()).sigmoid()
    ids_TK = torch.topk(scores_TE + bias_E, num_chosen, dim=-1).indices.sort(dim=-1).values
    weights_TK = scores_TE.gather(1, ids_TK)
    if is_normalized:
        weights_TK = weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + 1e-20)
    return weights_TK * scale, ids_TK


@pytest.mark.parametrize("is_normalized", [True, False])
@pytest.mark.parametrize("num_threads", [1, 2, 4])
@pytest.mark.parametrize("num_tokens", [0, 1, 3, 40, 200])
@pytest.mark.parametrize(("num_experts", "hidden", "num_chosen"), [(16, 64, 4), (5, 20, 5), (130, 100, 8), (1, 7, 1)])
def test_the_router_chooses_what_torch_chooses(
    library: Library,
    is_normalized: bool,
    num_threads: int,
    num_tokens: int,
    num_experts: int,
    hidden: int,
    num_chosen: int,
) -> None:
    torch.manual_seed(num_tokens)
    x_TD = torch.randn(num_tokens, hidden)
    weight_ED, bias_E = torch.randn(num_experts, hidden) * hidden**-0.5, 0.1 * torch.randn(num_experts)
    weights_TK, ids_TK = route(
        TEAMS[num_threads],
        x_TD,
        weight_ED,
        bias_E,
        num_chosen,
        is_normalized=is_normalized,
        scale=2.5,
        library=library,
    )
    expected_TK, expected_ids_TK = torch_route(
        x_TD, weight_ED, bias_E, num_chosen, is_normalized=is_normalized, scale=2.5
    )
    assert torch.equal(ids_TK.long(), expected_ids_TK)
    torch.testing.assert_close(weights_TK.double(), expected_TK, rtol=2e-6, atol=1e-7)


def test_of_equal_experts_the_lower_id_is_chosen(library: Library) -> None:
    weights_TK, ids_TK = route(
        TEAMS[1],
        torch.ones(2, 16),
        torch.zeros(40, 16),
        torch.tensor([0.0] * 20 + [1.0, 0.5] + [0.0] * 18),
        4,
        is_normalized=False,
        scale=1.0,
        library=library,
    )
    assert ids_TK.tolist() == [[0, 1, 20, 21]] * 2
    assert weights_TK.eq(0.5).all(), "the bias takes part in the choice only"


def test_rows_may_lie_apart(library: Library) -> None:
    torch.manual_seed(5)
    experts, wide_TD = random_experts(4, 24, 16), torch.randn(6, 30)
    ids_TK, weights_TK = random_choice(6, 4, 2)
    y_TD = feed_forward(TEAMS[2], wide_TD[:, :24], ids_TK, weights_TK, experts, library)
    assert torch.equal(y_TD, feed_forward(TEAMS[2], wide_TD[:, :24].contiguous(), ids_TK, weights_TK, experts, library))


def test_what_torch_mixes_in_fp32_is_near(library: Library) -> None:
    """The path that the kernel replaces, as it is: LocalDispatcher's parts."""
    torch.manual_seed(6)
    experts, x_TD = random_experts(6, 64, 32), torch.randn(17, 64)
    ids_TK, weights_TK = random_choice(17, 6, 3)
    sent = sort_by_expert(x_TD, ids_TK.long(), weights_TK, range(6))
    y_RD = grouped_experts_plain(sent.x_RD, sent.ends_L, experts.gate_up_L2ID, experts.down_LDI)
    y_TD = feed_forward(TEAMS[2], x_TD, ids_TK, weights_TK, experts, library)
    torch.testing.assert_close(y_TD, mix(y_RD, sent), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x_TD": torch.ones(2, 8, dtype=BF16)}, r"x is \(2, 8\) of torch.bfloat16 on cpu; it must be \(2, 8\) of"),
        ({"x_TD": torch.ones(2, 9)}, r"x is \(2, 9\)"),
        ({"x_TD": torch.ones(8, 2).T}, "x has strides"),
        ({"expert_ids_TK": torch.zeros(2, 1, dtype=torch.int64)}, "expert_ids is"),
        ({"weights_TK": torch.ones(2, 2)}, "weights is"),
    ],
)
def test_what_the_kernel_would_read_wrongly_is_refused(wrong: dict[str, Tensor], message: str) -> None:
    right = {
        "x_TD": torch.ones(2, 8),
        "expert_ids_TK": torch.zeros(2, 1, dtype=torch.int32),
        "weights_TK": torch.ones(2, 1),
    }
    with pytest.raises(ValueError, match=message):
        feed_forward(TEAMS[1], **(right | wrong), experts=random_experts(2, 8, 4))  # type: ignore[arg-type]


def test_weights_of_two_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"down is .* of torch\.bfloat16"):
        ExpertWeights(torch.ones(2, 8, 16), torch.ones(2, 16, 4, dtype=BF16))
    with pytest.raises(ValueError, match="one of them is missing"):
        ExpertWeights(torch.ones(2, 8, 16), torch.ones(2, 16, 4), shared_down_DS=torch.ones(16, 4))


def test_more_experts_a_token_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="5 experts a token: allowed are 1 to 4"):
        route(TEAMS[1], torch.ones(1, 8), torch.ones(4, 8), torch.ones(4), 5, is_normalized=True, scale=1.0)
