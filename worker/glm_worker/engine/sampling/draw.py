"""Logits to token ids: greedy, or temperature, then min_p, top_k and top_p, then one draw.

The order is vLLM's, and each filter sees the distribution as the ones before it left it: temperature shapes it; min_p
keeps tokens with at least min_p times the probability of the best; top_k keeps the k best of those; top_p keeps the
fewest best tokens whose share of what is left reaches top_p. Of equal logits the lower id is the better one.

A token is a function of its row of logits, its parameters and its position: rows never see each other, and the random
number comes from a counter. So a result does not depend on batch, order or ranks.

Shape suffixes: S rows, V vocabulary, C candidates of a row, best first. Rows have one value: S1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glm_worker.engine.sampling.randomness import uniform
from glm_worker.kernels.cpu.sample import BROKEN as BROKEN_ROW
from glm_worker.kernels.cpu.sample import Rule, SampleKernel
from glm_worker.kernels.to_device import to_device
from glm_worker.request import SamplingParams

_ROWS_AT_ONCE = {"cpu": 8}  # whose intermediate results fit a core's cache; a GPU takes all of them
_ROWS_UNASKED = 64  # of a GPU that sorts rows whole: some 10 MB each
NUM_CANDIDATES = 1024  # filters nearly always keep fewer, and sorting 150,000 tokens of a row is slow
LEAST_TEMPERATURE = 1e-5  # below it only the best token has any weight, and near 1e-46 fp32 would divide by zero


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of the rows of a step."""

    token_ids: list[int]  # of each row; of a broken one it means nothing, and is in the vocabulary all the same
    broken: list[int]  # rows whose largest logit is not a finite number

    @classmethod
    def of(cls, token_ids_S: Tensor | NDArray[np.int64]) -> "Drawn":
        """Return what draw_on_device or a kernel returned; on a GPU it is waited for."""
        token_ids: list[int] = token_ids_S.tolist()
        broken = [row for row, id_ in enumerate(token_ids) if id_ == BROKEN_ROW]
        for row in broken:
            token_ids[row] = 0
        return cls(token_ids, broken)

    @property
    def answers(self) -> list[list[int]]:
        """The token of each row as ranks commit it: nothing of a broken one."""
        answers = [[token_id] for token_id in self.token_ids]
        for row in self.broken:
            answers[row] = []
        return answers


def draw(
    logits_SV: Tensor,
    params: Sequence[SamplingParams],
    positions: Sequence[int],
    kernel: SampleKernel | None = None,
) -> Drawn:
    """Return a token for each row.

    logits_SV: fp32. positions: where in its sequence each sampled token will stand. kernel: draws in place of torch,
    for logits on the CPU.
    """
    if kernel is not None and params:
        return Drawn.of(kernel.draw(logits_SV, _rules(params, positions, logits_SV.shape[1])))
    return Drawn.of(draw_on_device(logits_SV, params, positions, asks_host=True))


def draw_on_device(
    logits_SV: Tensor,
    params: Sequence[SamplingParams],
    positions: Sequence[int],
    kernel: SampleKernel | None = None,
    *,
    asks_host: bool,
) -> Tensor:
    """Return a token for each row where the logits are, (S,) int64; BROKEN_ROW for a broken one.

    asks_host: whether filters may look at the device to see if the leading candidates suffice, which on a GPU waits
    for all that was launched. Else they sort every row whole.
    """
    if not params:
        return torch.empty(0, dtype=torch.int64, device=logits_SV.device)
    if kernel is not None:
        return torch.from_numpy(kernel.draw(logits_SV, _rules(params, positions, logits_SV.shape[1])))
    device, vocab_size = logits_SV.device, logits_SV.shape[1]
    num_candidates = min(NUM_CANDIDATES, vocab_size) if asks_host or device.type == "cpu" else vocab_size
    best_S, token_ids_S = logits_SV.max(dim=1)  # the first of equals; NaN if there is one
    is_broken_S = ~best_S.isfinite()
    drawn = [i for i, p in enumerate(params) if p.temperature >= LEAST_TEMPERATURE]
    unfiltered, filtered = ([i for i in drawn if _has_filter(params[i]) == has] for has in (False, True))
    for rows, draw_rows in (
        (unfiltered, _draw_unfiltered),
        (filtered, partial(_draw_filtered, num_candidates=num_candidates)),
    ):
        size = _ROWS_AT_ONCE.get(device.type, len(rows) if asks_host else _ROWS_UNASKED)
        for begin in range(0, len(rows), max(size, 1)):
            some = rows[begin : begin + size]
            rows_S = to_device(np.array(some), device)
            rules = _Rules.of([params[i] for i in some], [positions[i] for i in some], logits_SV)
            token_ids_S[rows_S] = draw_rows(logits_SV[rows_S], rules)
    return token_ids_S.masked_fill_(is_broken_S, BROKEN_ROW)


def _has_filter(params: SamplingParams) -> bool:
    return params.min_p > 0 or params.top_k > 0 or params.top_p < 1


def _rules(params: Sequence[SamplingParams], positions: Sequence[int], vocab_size: int) -> list[Rule]:
    """Return what is asked of each row."""
    return [
        (p.temperature, p.min_p, min(p.top_k, vocab_size), p.top_p, uniform(p.seed, position))
        if p.temperature >= LEAST_TEMPERATURE
        else (0.0, 0.0, 0, 1.0, 0.0)
        for p, position in zip(params, positions, strict=True)
    ]


@dataclass(frozen=True)
class _Rules:
    """What is asked of each row, and its random number: columns on the device of the logits."""

    temperature_S1: Tensor
    min_p_S1: Tensor
    top_k_S1: Tensor  # at most V
    top_p_S1: Tensor
    uniform_S1: Tensor

    @classmethod
    def of(cls, params: Sequence[SamplingParams], positions: Sequence[int], logits_SV: Tensor) -> "_Rules":
        table_S5 = to_device(np.array(_rules(params, positions, logits_SV.shape[1])), logits_SV.device)
        table_S5[:, 2].masked_fill_(table_S5[:, 2] == 0, logits_SV.shape[1])
        return cls(*table_S5[:, :, None].unbind(dim=1))

    def of_rows(self, rows_S: Tensor) -> "_Rules":
        columns = (self.temperature_S1, self.min_p_S1, self.top_k_S1, self.top_p_S1, self.uniform_S1)
        return _Rules(*(column[rows_S] for column in columns))


def _draw_unfiltered(logits_SV: Tensor, rules: _Rules) -> Tensor:
    """Draw from the whole vocabulary, in order of ids."""
    best_S1 = logits_SV.amax(dim=1, keepdim=True)
    return _draw(_weights(logits_SV, best_S1, rules), rules)


def _draw_filtered(logits_SV: Tensor, rules: _Rules, num_candidates: int) -> Tensor:
    """Draw from what the filters keep, best first. Rows that need more than the leading candidates are sorted whole."""
    vocab_size = logits_SV.shape[1]
    values_SC, ids_SC = _best_candidates(logits_SV, num_candidates)
    weights_SC = _weights(values_SC, values_SC[:, :1], rules)
    if values_SC.shape[1] == vocab_size:
        total_S1 = weights_SC.sum(dim=1, keepdim=True)
    else:
        total_S1 = _weights(logits_SV, values_SC[:, :1], rules).sum(dim=1, keepdim=True)
    num_kept_S1, is_sure_S = _num_kept(values_SC, weights_SC, total_S1, rules, vocab_size)
    token_ids_S = _draw_leading(ids_SC, weights_SC, num_kept_S1, rules)
    if num_candidates < vocab_size and not bool(is_sure_S.all()):
        rows_S = (~is_sure_S).nonzero().flatten()
        values_SC, ids_SC = _best_candidates(logits_SV[rows_S], vocab_size)
        rules = rules.of_rows(rows_S)
        weights_SC = _weights(values_SC, values_SC[:, :1], rules)
        num_kept_S1, _ = _num_kept(values_SC, weights_SC, total_S1[rows_S], rules, vocab_size)
        token_ids_S[rows_S] = _draw_leading(ids_SC, weights_SC, num_kept_S1, rules)
    return token_ids_S


def _best_candidates(logits_SV: Tensor, num_candidates: int) -> tuple[Tensor, Tensor]:
    """Return the best logits of each row and their ids, best first; of equals the lower id first.

    Which of the tokens equal to the last one are among them is left open, unless it is the whole vocabulary.
    """
    if num_candidates == logits_SV.shape[1]:
        values_SV, ids_SV = logits_SV.sort(dim=1, descending=True, stable=True)
        return values_SV, ids_SV
    ids_SC = logits_SV.topk(num_candidates, dim=1, sorted=False).indices.sort(dim=1).values
    values_SC, order_SC = logits_SV.gather(1, ids_SC).sort(dim=1, descending=True, stable=True)
    return values_SC, ids_SC.gather(1, order_SC)


def _weights(logits_SC: Tensor, best_S1: Tensor, rules: _Rules) -> Tensor:
    """Return the probabilities after temperature, up to a factor a row: the best token has 1. In fp64, to be summed."""
    return ((logits_SC - best_S1) / rules.temperature_S1.float()).exp().double()


def _num_kept(
    values_SC: Tensor, weights_SC: Tensor, total_S1: Tensor, rules: _Rules, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Return how many leading candidates the filters keep, and for which rows the candidates suffice to know.

    total_S1: the weights of the whole vocabulary.
    """
    num_candidates = values_SC.shape[1]
    cumulated_SC = weights_SC.cumsum(dim=1)
    num_likely_S1 = (weights_SC >= rules.min_p_S1).sum(dim=1, keepdim=True)
    num_left_S1 = torch.minimum(num_likely_S1, rules.top_k_S1.long()).clamp(min=1)
    # With all candidates left, more may be left beyond them: their weight is known only if nothing was filtered yet
    is_open_S1 = (num_left_S1 == num_candidates) & (num_candidates < vocab_size)
    is_untouched_S1 = (rules.min_p_S1 == 0) & (rules.top_k_S1 == vocab_size)
    left_S1 = torch.where(is_open_S1, total_S1, cumulated_SC.gather(1, num_left_S1 - 1))
    num_nucleus_S1 = (cumulated_SC < rules.top_p_S1 * left_S1).sum(dim=1, keepdim=True) + 1
    num_kept_S1 = torch.where(rules.top_p_S1 < 1, torch.minimum(num_nucleus_S1, num_left_S1), num_left_S1)
    # The tokens equal to the last candidate are known only if that is the last of all
    is_cut_S1 = values_SC.gather(1, num_kept_S1 - 1) > values_SC[:, -1:]
    is_sure_S1 = is_cut_S1 & (~is_open_S1 | is_untouched_S1) if num_candidates < vocab_size else is_cut_S1 | True
    return num_kept_S1, is_sure_S1[:, 0]


def _draw_leading(ids_SC: Tensor, weights_SC: Tensor, num_kept_S1: Tensor, rules: _Rules) -> Tensor:
    """Draw from the first num_kept candidates of each row."""
    is_kept_SC = torch.arange(ids_SC.shape[1], device=ids_SC.device) < num_kept_S1
    return ids_SC.gather(1, _draw(weights_SC * is_kept_SC, rules)[:, None])[:, 0]


def _draw(weights_SC: Tensor, rules: _Rules) -> Tensor:
    """Return for each row the index that its random number falls on, by the inverse of the cumulated weights."""
    cumulated_SC = weights_SC.cumsum(dim=1)
    total_S1 = cumulated_SC[:, -1:]
    target_S1 = rules.uniform_S1 * total_S1
    # Rounding may lift the target to the total, and past every index
    target_S1 = torch.minimum(target_S1, torch.nextafter(total_S1, torch.zeros_like(total_S1)))
    # right: the first whose sum is above the target, so never one of weight 0
    indices_S: Tensor = torch.searchsorted(cumulated_SC, target_S1, right=True)[:, 0]
    return indices_S.clamp_(max=weights_SC.shape[1] - 1)  # of a broken row it may be past the end
