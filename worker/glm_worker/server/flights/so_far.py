"""What another group has written of an answer, read again here, a few tokens at a turn of the loop.

A long answer takes seconds to read. All other streams would stand still meanwhile, were it read at once; and a thread
would hold Python's lock as long.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from glm_worker.messages import FinishReason as EngineFinish
from glm_worker.server.jobs.job import Job
from glm_worker.server.text.deltas import Delta, merged
from glm_worker.server.text.output import OutputReader

TOKENS_A_TURN = 64  # some 2 to 5 ms

_ENGINE_ENDS: dict[str, EngineFinish] = {"stop": "stop", "length": "length"}


@dataclass(frozen=True, kw_only=True)
class ReadSoFar:
    """reader: has read token_ids. deltas: that nobody has taken. engine_end: why the engine had ended it, if it had."""

    reader: OutputReader
    token_ids: list[int]
    engine_end: EngineFinish | None
    deltas: list[Delta] = field(default_factory=list)


async def read_so_far(job: Job, take: Callable[[list[Delta]], object] | None = None) -> ReadSoFar:
    """Return the answer that was begun, as if it had been written here. Needs a job that was.

    take: is given the deltas of each turn; None: they are kept.
    """
    assert job.begun is not None
    ids, reader, kept = job.begun.ids, job.reader(), list[Delta]()
    end = _ENGINE_ENDS.get(job.begun.reason or "")
    for begin in range(0, len(ids) or 1, TOKENS_A_TURN):
        is_last = begin + TOKENS_A_TURN >= len(ids)
        deltas = reader.feed(ids[begin : begin + TOKENS_A_TURN], end if is_last else None)
        if take is None:
            kept += merged(deltas)
        else:
            take(deltas)
        await asyncio.sleep(0)
    return ReadSoFar(reader=reader, token_ids=list(ids), engine_end=end, deltas=kept)
