"""Where bodies are read: in the event loop what takes a few milliseconds, all else in threads, one after the other.

To read a large body is to hold Python's lock, for up to 20 ms at a stretch. A single thread that does so leaves the
lock to the loop after each stretch. Of several, the next would often have it before the loop, and all streams would
wait for one thread after the other. So there is one thread for each order of size: a short body need not wait for the
long ones, nor any for those of megabytes, which take seconds.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from glm_worker.errors import Overloaded
from glm_worker.server.edge.memory import Memory
from glm_worker.server.text.encoding import give_way

Result = TypeVar("Result")

QUICK_BYTES = 2 * 2**10  # a hundred clients at once may send as much
SHORT_BYTES = 16 * 2**10
HUGE_BYTES = 2**20
MOST_WAITING = 256  # in one lane; a short body takes some 10 ms
RETRY_AFTER_S = 2
# Of a short body with no other fields than these the text is all the work. What is not here may have a schema, a
# grammar or a pattern in it, which can be seconds of work in 10 KB, or names what is stored, whatever its size.
QUICK_FIELDS = frozenset({
    "add_generation_prompt", "add_special_tokens", "chat_template_kwargs", "continue_final_message", "deadline_s",
    "do_sample", "echo", "enable_thinking", "frequency_penalty", "ignore_eos", "include_reasoning", "logprobs",
    "max_completion_tokens", "max_tokens", "messages", "metadata", "min_p", "min_tokens", "model", "n",
    "presence_penalty", "priority", "prompt", "reasoning", "reasoning_effort", "repetition_penalty", "request_id",
    "return_token_strs", "seed", "stop", "stop_sequences", "store", "stream", "stream_options", "system",
    "temperature", "thinking", "thinking_token_budget", "tokens", "top_k", "top_logprobs", "top_p", "user", "user_id",
})  # fmt: skip


class Lanes:
    """The threads, started at need. Use it in one event loop."""

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory or Memory()
        self._short, self._large, self._huge = (_Lane(size) for size in ("short", "large", "huge"))

    async def run(self, body: bytes, work: Callable[[], Result]) -> Result:
        """Return what the work makes of a body, or raise what it raises: at once, or when its turn has come.

        Cancelled before its turn it is never done. Raises Overloaded where too many wait for theirs.
        """
        if is_quick(body):
            return work()
        num_bytes = len(body)
        lane = self._short if num_bytes <= SHORT_BYTES else self._large if num_bytes <= HUGE_BYTES else self._huge
        try:
            return await lane.run(work)
        finally:
            self.freed(num_bytes)

    def freed(self, num_bytes: int) -> None:
        """Note that a body of this length, or what was made of it, is done with."""
        self._memory.freed(num_bytes)


class _Lane:
    """One thread, and those that wait for it."""

    def __init__(self, size: str) -> None:
        self._size = size
        self._thread = ThreadPoolExecutor(1, f"reads-{size}-bodies", initializer=give_way)
        self._num_waiting = 0  # those whose turn it is as well

    async def run(self, work: Callable[[], Result]) -> Result:
        if self._num_waiting >= MOST_WAITING:
            raise Overloaded(
                f"{self._num_waiting} {self._size} requests wait to be read; try again", retry_after_s=RETRY_AFTER_S
            )
        self._num_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, copy_context().run, work)
        finally:
            self._num_waiting -= 1


def is_quick(body: bytes) -> bool:
    """Tell whether a body is surely read in a few milliseconds. What is no JSON here may be some to other parsers."""
    if len(body) > QUICK_BYTES:
        return False
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return not isinstance(value, dict) or value.keys() <= QUICK_FIELDS
