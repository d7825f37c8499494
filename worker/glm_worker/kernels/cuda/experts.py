# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"
"""Router and routed experts of a sparse MoE layer on a GPU: five launches, none of which asks the host anything.

The twins are model/moe.py's Router and grouped_experts_plain. NOT RUN ON A GPU YET: checked by Triton's interpreter.

Shape suffixes: T tokens, D hidden size, E experts of the model, K experts a token, L experts of this rank, I width of
an expert, C = T * K copies of tokens, R rows: each expert's copies, filled up to a multiple of _ROWS.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 16  # of one expert that a program takes: a decode step has few each
_COLUMNS = 64
_DEPTH = 64
_COPIES = 1024  # that a program looks at in one go when it places them


@dataclass(frozen=True)
class Places:
    """Where copies stand among the rows of this rank's experts."""

    copy_R: Tensor  # int32: the copy in a row, or C where a row fills up
    expert_P: Tensor  # int32: of each program's _ROWS rows, or -1
    is_local_C: Tensor  # int8


def route(
    logits_TE: Tensor, correction_bias_E: Tensor, num_chosen: int, *, is_normalized: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Return weights (T, K) in fp32 and expert ids (T, K) in int32, the best first; of equals the lower id.

    logits: fp32. Sigmoid scores; the correction bias takes part in the choice only.
    """
    num_tokens, num_experts = logits_TE.shape
    weights_TK = logits_TE.new_empty(num_tokens, num_chosen)
    ids_TK = logits_TE.new_empty(num_tokens, num_chosen, dtype=torch.int32)
    if num_tokens:
        _route[(num_tokens,)](
            *(logits_TE, correction_bias_E, weights_TK, ids_TK, scale),
            num_experts=num_experts,
            num_chosen=num_chosen,
            block=triton.next_power_of_2(num_experts),
            chosen_block=triton.next_power_of_2(num_chosen),
            is_normalized=is_normalized,
        )
    return weights_TK, ids_TK


def place(ids_TK: Tensor, experts: range) -> Places:
    """Sort the copies of tokens by this rank's experts, stably; the number of rows depends on shapes alone."""
    num_copies, num_local = ids_TK.numel(), len(experts)
    num_programs = triton.cdiv(num_copies, _ROWS) + min(num_local, num_copies)
    counts_L = ids_TK.new_empty(num_local, dtype=torch.int32)
    copy_R = ids_TK.new_full((num_programs * _ROWS,), num_copies, dtype=torch.int32)
    expert_P = ids_TK.new_full((num_programs,), -1, dtype=torch.int32)
    is_local_C = ids_TK.new_zeros(num_copies, dtype=torch.int8)
    if num_copies:
        sizes = {"num_copies": num_copies, "first": experts.start, "copies": _COPIES}
        _count[(num_local,)](ids_TK, counts_L, **sizes)
        _place[(num_local,)](
            *(ids_TK, counts_L, copy_R, expert_P, is_local_C),
            **sizes,
            rows=_ROWS,
            local_block=triton.next_power_of_2(num_local),
        )
    return Places(copy_R, expert_P, is_local_C)


def fused_experts(
    x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, gate_up_L2ID: Tensor, down_LDI: Tensor, first_expert: int = 0
) -> Tensor:
    """Return (T, D): of each token, what this rank's experts among its K say, weighted and added up in fp32.

    Gate's rows come first in gate_up. Ids of experts that are not here count as 0.
    """
    (num_tokens, num_chosen), (num_local, _, size) = ids_TK.shape, gate_up_L2ID.shape
    width, num_copies = down_LDI.shape[2], ids_TK.numel()
    out_TD = torch.empty_like(x_TD)
    if not num_tokens:
        return out_TD
    places = place(ids_TK, range(first_expert, first_expert + num_local))
    num_programs = len(places.expert_P)
    hidden_RI = x_TD.new_empty(len(places.copy_R), width)
    said_CD = x_TD.new_empty(num_copies, size, dtype=torch.float32)
    shared = (places.copy_R, places.expert_P)
    sizes = {"size": size, "width": width, "num_copies": num_copies, "rows": _ROWS}
    blocks = {"columns": _COLUMNS, "depth": _DEPTH}
    _gate_up[(num_programs, triton.cdiv(width, _COLUMNS))](
        *(x_TD, gate_up_L2ID, hidden_RI, *shared, x_TD.stride(0)), **sizes, **blocks, num_chosen=num_chosen
    )
    _down[(num_programs, triton.cdiv(size, _COLUMNS))](hidden_RI, down_LDI, said_CD, *shared, **sizes, **blocks)
    _mix[(num_tokens, triton.cdiv(size, _COPIES))](
        *(said_CD, weights_TK, places.is_local_C, out_TD), size=size, num_chosen=num_chosen, columns=_COPIES
    )
    return out_TD


@triton.jit
def _route(
    logits,
    correction_bias,
    weights,
    ids,
    scale,
    num_experts: tl.constexpr,
    num_chosen: tl.constexpr,
    block: tl.constexpr,
    chosen_block: tl.constexpr,
    is_normalized: tl.constexpr,
):
    token = tl.program_id(0)
    expert = tl.arange(0, block)
    is_there = expert < num_experts
    logit = tl.load(logits + token.to(tl.int64) * num_experts + expert, mask=is_there, other=0.0)
    score = 1.0 / (1.0 + tl.exp(-logit))
    worth = score + tl.load(correction_bias + expert, mask=is_there, other=0.0)
    worth = tl.where(is_there & (worth == worth), worth, -float("inf"))  # a broken token chooses, and stays broken
    place = tl.arange(0, chosen_block)
    chosen_ids = tl.zeros([chosen_block], tl.int32)
    chosen_scores = tl.zeros([chosen_block], tl.float32)
    is_free = is_there
    for number in tl.static_range(num_chosen):
        best = tl.max(tl.where(is_free, worth, -float("inf")), axis=0)
        found = tl.min(tl.where(is_free & (worth >= best), expert, block), axis=0)
        chosen_ids = tl.where(place == number, found, chosen_ids)
        chosen_scores = tl.where(place == number, tl.sum(tl.where(expert == found, score, 0.0), axis=0), chosen_scores)
        is_free = is_free & (expert != found)
    if is_normalized:
        chosen_scores = chosen_scores / (tl.sum(chosen_scores, axis=0) + 1e-20)
    at = token.to(tl.int64) * num_chosen + place
    tl.store(ids + at, chosen_ids, mask=place < num_chosen)
    tl.store(weights + at, chosen_scores * scale, mask=place < num_chosen)


@triton.jit
def _count(ids, counts, num_copies, first: tl.constexpr, copies: tl.constexpr):
    expert = tl.program_id(0)
    count = 0
    for begin in range(0, num_copies, copies):
        copy = begin + tl.arange(0, copies)
        found = tl.load(ids + copy, mask=copy < num_copies, other=-1)
        count += tl.sum((found == expert + first).to(tl.int32), axis=0)
    tl.store(counts + expert, count)


@triton.jit
def _place(
    ids,
    counts,
    copy_of_row,
    expert_of_program,
    is_local,
    num_copies,
    first: tl.constexpr,
    copies: tl.constexpr,
    rows: tl.constexpr,
    local_block: tl.constexpr,
):
    """Give each copy of one expert its row; experts stand behind each other, each with whole programs."""
    expert = tl.program_id(0)
    before = tl.arange(0, local_block)
    count = tl.load(counts + before, mask=before < expert, other=0)
    first_program = tl.sum((count + rows - 1) // rows, axis=0)
    place = first_program * rows
    for begin in range(0, num_copies, copies):
        copy = begin + tl.arange(0, copies)
        found = tl.load(ids + copy, mask=copy < num_copies, other=-1)
        is_own = (found == expert + first) & (copy < num_copies)
        number = tl.cumsum(is_own.to(tl.int32), axis=0)
        tl.store(copy_of_row + place + number - 1, copy, mask=is_own)
        tl.store(is_local + copy, tl.full([copies], 1, tl.int8), mask=is_own)
        place += tl.sum(is_own.to(tl.int32), axis=0)
    own = tl.load(counts + expert)
    for number in range((own + rows - 1) // rows):
        tl.store(expert_of_program + first_program + number, expert)


@triton.jit
def _gate_up(
    x,
    gate_up,
    hidden,
    copy_of_row,
    expert_of_program,
    x_stride,
    size: tl.constexpr,
    width: tl.constexpr,
    num_copies: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    num_chosen: tl.constexpr,
):
    """silu(gate) * up of some rows of one expert, for some columns of its width."""
    program = tl.program_id(0)
    expert = tl.load(expert_of_program + program)
    if expert >= 0:
        row = program * rows + tl.arange(0, rows)
        copy = tl.load(copy_of_row + row)
        is_row = copy < num_copies
        column = tl.program_id(1) * columns + tl.arange(0, columns)
        is_column = column < width
        weights = gate_up + expert.to(tl.int64) * 2 * width * size
        x_row = x + (copy // num_chosen).to(tl.int64) * x_stride
        gate = tl.zeros([rows, columns], tl.float32)
        up = tl.zeros([rows, columns], tl.float32)
        for begin in range(0, size, depth):
            k = begin + tl.arange(0, depth)
            is_k = k < size
            x_RK = tl.load(x_row[:, None] + k[None, :], mask=is_row[:, None] & is_k[None, :], other=0.0)
            at = weights + column.to(tl.int64)[None, :] * size + k[:, None]
            is_there = is_k[:, None] & is_column[None, :]
            gate += tl.dot(x_RK, tl.load(at, mask=is_there, other=0.0), input_precision="ieee")
            up += tl.dot(x_RK, tl.load(at + width * size, mask=is_there, other=0.0), input_precision="ieee")
        result = gate / (1.0 + tl.exp(-gate)) * up
        out = hidden + row.to(tl.int64)[:, None] * width + column[None, :]
        tl.store(out, result.to(hidden.dtype.element_ty), mask=is_row[:, None] & is_column[None, :])


@triton.jit
def _down(
    hidden,
    down,
    said,
    copy_of_row,
    expert_of_program,
    size: tl.constexpr,
    width: tl.constexpr,
    num_copies: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
):
    """The down projection of some rows of one expert, written where their copies are at home."""
    program = tl.program_id(0)
    expert = tl.load(expert_of_program + program)
    if expert >= 0:
        row = program * rows + tl.arange(0, rows)
        copy = tl.load(copy_of_row + row)
        is_row = copy < num_copies
        column = tl.program_id(1) * columns + tl.arange(0, columns)
        is_column = column < size
        weights = down + expert.to(tl.int64) * width * size
        result = tl.zeros([rows, columns], tl.float32)
        for begin in range(0, width, depth):
            k = begin + tl.arange(0, depth)
            is_k = k < width
            h_at = hidden + row.to(tl.int64)[:, None] * width + k[None, :]
            h_RK = tl.load(h_at, mask=is_row[:, None] & is_k[None, :], other=0.0)
            at = weights + column.to(tl.int64)[None, :] * width + k[:, None]
            w_KN = tl.load(at, mask=is_k[:, None] & is_column[None, :], other=0.0)
            result += tl.dot(h_RK, w_KN, input_precision="ieee")
        out = said + copy.to(tl.int64)[:, None] * size + column[None, :]
        tl.store(out, result, mask=is_row[:, None] & is_column[None, :])


@triton.jit
def _mix(said, weights, is_local, out, size: tl.constexpr, num_chosen: tl.constexpr, columns: tl.constexpr):
    token = tl.program_id(0)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.zeros([columns], tl.float32)
    for number in tl.static_range(num_chosen):
        copy = token.to(tl.int64) * num_chosen + number
        is_read = column < tl.where(tl.load(is_local + copy) != 0, size, 0)  # what nobody computed holds anything
        total += tl.load(said + copy * size + column, mask=is_read, other=0.0) * tl.load(weights + copy)
    tl.store(out + token.to(tl.int64) * size + column, total.to(out.dtype.element_ty), mask=column < size)
