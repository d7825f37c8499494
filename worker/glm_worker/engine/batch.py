"""A plan as index arrays: which token stands where, and in which KV slot.

The arrays are kept from step to step and written in place: the host's, and on a GPU their copies there, whose addresses
a captured graph knows. Of block tables only what has changed is written. They grow when a step needs more, which moves
them; whoever captures says the most that a step can need at the beginning.

Shape suffixes: T tokens of the step, B sequences, M blocks of the longest of them, S rows whose logits are wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glm_worker.model.forward_batch import ForwardBatch, HostBatch
from glm_worker.scheduler.block_manager import blocks_for
from glm_worker.scheduler.plan import ScheduledSequence


@dataclass(frozen=True, slots=True)
class StepRoom:
    """The most that a step may need."""

    num_tokens: int = 256
    num_sequences: int = 32
    num_blocks: int = 64  # of one sequence


class BatchBuilder:
    """Owns the arrays of a rank. A batch is valid until the next one is built."""

    def __init__(self, block_size: int, device: torch.device, room: StepRoom | None = None) -> None:
        self._block_size = block_size
        self._device = device
        self._room = room or StepRoom()
        self._tables = BlockTables(self._room.num_sequences, self._room.num_blocks)
        self._mirror: _Mirror | None = None  # on a GPU
        self._decode: HostBatch | None = None  # of the last step of single tokens
        self._decode_tensors: list[Tensor] | None = None  # on a CPU; the same memory
        self._allocate()

    def build(self, sequences: Sequence[ScheduledSequence]) -> ForwardBatch:
        """Return the batch of a step. The rows of logits are in the order of the sequences that are sampled."""
        if self._mirror is not None:
            self._mirror.wait()
        if sequences and all(len(sequence.token_ids) == 1 and sequence.is_sampled for sequence in sequences):
            return self._build_decode(sequences)
        lens = [len(sequence.token_ids) for sequence in sequences]
        num_sequences, num_tokens = len(lens), sum(lens)
        self._make_room(num_tokens, num_sequences)
        cu_B1 = self._cu_query_lens[: num_sequences + 1]
        lens_B = np.array(lens, dtype=np.int32)
        np.cumsum(lens_B, out=cu_B1[1:])
        contexts_B = self._context_lens[:num_sequences]
        contexts_B[:] = [sequence.start for sequence in sequences]
        before_B = contexts_B - cu_B1[:-1]  # position of a token less its row
        contexts_B += lens_B
        ids_T = self._token_ids[:num_tokens]
        for row, sequence, length in zip(cu_B1[:-1].tolist(), sequences, lens, strict=True):
            ids_T[row : row + length] = sequence.token_ids
        of_T = np.repeat(self._rows[:num_sequences], lens_B)  # sequence of each token
        positions_T = self._positions[:num_tokens]
        np.add(self._rows[:num_tokens], before_B[of_T], out=positions_T)
        most_blocks = blocks_for(int(contexts_B.max()), self._block_size) if lens else 0
        tables_BM = self._tables.update(sequences, most_blocks)
        slots_T = self._slots[:num_tokens]
        places_T, offsets_T = np.divmod(positions_T, self._block_size)
        np.multiply(tables_BM[of_T, places_T], self._block_size, out=slots_T)
        slots_T += offsets_T
        sampled = [number for number, sequence in enumerate(sequences) if sequence.is_sampled]
        logit_rows_S = self._logit_rows[: len(sampled)]
        np.subtract(cu_B1[1:][sampled], 1, out=logit_rows_S)
        host = HostBatch(ids_T, positions_T, slots_T, cu_B1, contexts_B, tables_BM, logit_rows_S)
        return self._on_device(host)

    def _build_decode(self, sequences: Sequence[ScheduledSequence]) -> ForwardBatch:
        """Return the batch of a step in which every sequence has one token, which is sampled.

        Most steps are such, one like the other: they share their views, and whoever plans by it can see that.
        """
        num_sequences, block_size = len(sequences), self._block_size
        self._make_room(num_sequences, num_sequences)
        starts = [sequence.start for sequence in sequences]
        last = max(starts)
        tables_BM = self._tables.update(sequences, last // block_size + 1)
        host = self._decode_views(tables_BM)
        host.token_ids_T[:] = [sequence.token_ids[0] for sequence in sequences]
        host.positions_T[:] = starts
        host.slots_T[:] = [s.block_table[s.start // block_size] * block_size + s.start % block_size for s in sequences]
        host.cu_query_lens_B1[:] = self._rows[: num_sequences + 1]
        host.context_lens_B[:] = [start + 1 for start in starts]
        host.logit_rows_S[:] = self._rows[:num_sequences]
        if self._device.type != "cpu":
            return self._on_device(host)
        if self._decode_tensors is None:
            self._decode_tensors = host.on_cpu()
        return ForwardBatch.of(host, self._decode_tensors, block_size, max_query_len=1, max_context_len=last + 1)

    def _decode_views(self, tables_BM: NDArray[np.int32]) -> HostBatch:
        """Return the arrays of a step of as many tokens as sequences: those of the last one where they are the same."""
        num_sequences, found = len(tables_BM), self._decode
        if found is not None:
            known_BM = found.block_tables_BM
            if known_BM.shape == tables_BM.shape and known_BM.base is tables_BM.base:
                return found
        self._decode = HostBatch(
            self._token_ids[:num_sequences],
            self._positions[:num_sequences],
            self._slots[:num_sequences],
            self._cu_query_lens[: num_sequences + 1],
            self._context_lens[:num_sequences],
            tables_BM,
            self._logit_rows[:num_sequences],
        )
        self._decode_tensors = None
        return self._decode

    def _make_room(self, num_tokens: int, num_sequences: int) -> None:
        room = self._room
        if num_tokens > room.num_tokens or num_sequences > room.num_sequences:
            self._room = StepRoom(
                max(num_tokens, room.num_tokens * 2), max(num_sequences, room.num_sequences * 2), room.num_blocks
            )
            self._allocate()

    def _allocate(self) -> None:
        room, is_pinned = self._room, self._device.type == "cuda"
        self._rows = np.arange(max(room.num_tokens, room.num_sequences) + 1)
        self._token_ids, self._positions, self._slots = (
            _zeros(room.num_tokens, torch.int64, is_pinned) for _ in range(3)
        )
        self._logit_rows = _zeros(room.num_sequences, torch.int64, is_pinned)
        self._cu_query_lens = _zeros(room.num_sequences + 1, torch.int32, is_pinned)
        self._context_lens = _zeros(room.num_sequences, torch.int32, is_pinned)
        self._mirror = None
        self._decode = self._decode_tensors = None

    def _on_device(self, host: HostBatch) -> ForwardBatch:
        if self._device.type == "cpu":
            return host.on_device(self._block_size, self._device)
        if self._mirror is None or self._mirror.tables_shape != self._tables.shape:
            self._mirror = _Mirror(self._room, self._tables.shape, self._device)
        return ForwardBatch.of(host, self._mirror.copies(host.arrays), self._block_size)


class BlockTables:
    """The block tables of the last step as rows of one array.

    A row stays while its sequence has the same list as in the step before, and what was appended to the list is added.
    So a list may only be appended to while its sequence runs; other blocks come in another list. That is how the block
    manager does it.
    """

    def __init__(self, num_sequences: int, num_blocks: int) -> None:
        self._array = np.zeros((num_sequences, num_blocks), dtype=np.int32)
        self._ids: list[str] = []  # of the sequences of the last step, in order
        self._lists: list[list[int] | None] = [None] * num_sequences  # that stand in the rows; None: nobody's
        self._lens = [0] * num_sequences  # blocks that stand in each row; behind them it is 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def update(self, sequences: Sequence[ScheduledSequence], most_blocks: int) -> NDArray[np.int32]:
        """Return (B, most_blocks): a row for each sequence, in this order. It is valid until the next update."""
        self._make_room(len(sequences), max((len(s.block_table) for s in sequences), default=0))
        self._move([sequence.request_id for sequence in sequences])
        array, lists, lens = self._array, self._lists, self._lens
        for row, sequence in enumerate(sequences):
            table, known = sequence.block_table, lens[row]
            if table is not lists[row] or len(table) < known:
                array[row, :known] = 0
                lists[row], known = table, 0
            if len(table) > known:
                array[row, known : len(table)] = table[known:] if known else table
            lens[row] = len(table)
        return array[: len(sequences), :most_blocks]

    def _move(self, ids: list[str]) -> None:
        """Bring the row of each sequence that was in the last step to its place in this one."""
        if ids == self._ids:
            return
        place_of = dict(zip(self._ids, range(len(self._ids)), strict=True))
        places = [place_of.get(id_) for id_ in ids]
        moves = [(row, place) for row, place in enumerate(places) if place is not None and place != row]
        known = [(self._lists[place], self._lens[place]) for _, place in moves]
        if moves:
            rows, sources = zip(*moves, strict=True)
            width = max(self._lens)
            self._array[list(rows), :width] = self._array[list(sources), :width]
        for (row, _), (table, length) in zip(moves, known, strict=True):
            self._lists[row], self._lens[row] = table, length
        for row, place in enumerate(places):
            if place is None:
                self._lists[row] = None
        self._ids = ids

    def _make_room(self, num_sequences: int, num_blocks: int) -> None:
        old = self._array
        if num_sequences <= old.shape[0] and num_blocks <= old.shape[1]:
            return
        num_rows = old.shape[0] if num_sequences <= old.shape[0] else max(num_sequences, 2 * old.shape[0])
        width = old.shape[1] if num_blocks <= old.shape[1] else max(num_blocks, 2 * old.shape[1])
        self._array = np.zeros((num_rows, width), dtype=np.int32)
        self._array[: old.shape[0], : old.shape[1]] = old
        self._lists += [None] * (num_rows - len(self._lists))
        self._lens += [0] * (num_rows - len(self._lens))


class _Mirror:
    """The arrays on a GPU. Its queue copies them; the host's may be written again when the copies are done."""

    def __init__(self, room: StepRoom, tables_shape: tuple[int, ...], device: torch.device) -> None:
        self.tables_shape = tables_shape
        tokens, sequences = room.num_tokens, room.num_sequences
        lengths = (tokens, tokens, tokens, sequences)
        self._tensors = [torch.zeros(length, dtype=torch.int64, device=device) for length in lengths]
        self._tensors += [torch.zeros(n, dtype=torch.int32, device=device) for n in (sequences + 1, sequences)]
        self._tensors.append(torch.zeros(tables_shape, dtype=torch.int32, device=device))
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Return when the last copies are done."""
        self._copied.synchronize()

    def copies(self, arrays: Sequence[NDArray[np.int32] | NDArray[np.int64]]) -> list[Tensor]:
        copies = []
        for tensor, array in zip(self._tensors, arrays, strict=True):
            copies.append(tensor[tuple(slice(n) for n in array.shape)])
            copies[-1].copy_(torch.from_numpy(array), non_blocking=True)
        self._copied.record()
        return copies


def _zeros(length: int, dtype: torch.dtype, is_pinned: bool) -> NDArray[Any]:
    array: NDArray[Any] = torch.zeros(length, dtype=dtype, pin_memory=is_pinned).numpy()
    return array
