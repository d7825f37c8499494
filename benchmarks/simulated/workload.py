"""What is asked: conversations that begin with shared system prompts, and single questions behind a hot one."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf

from glm_gateway.routing.prefix import Prefix, prefix_key, prefix_of
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8

BLOCK = H200_AIR_FP8.block_size
BYTES_PER_TOKEN = 4
WARM_S = 60.0
KEY = prefix_key(b"benchmark", "tenant")

Block = tuple[str, int, int]
"""What a KV block holds: a system prompt's or a session's text, which one, and the place."""


@dataclass(frozen=True)
class Turn:
    """A request of a session. Blocks and bytes are of the whole prompt, so of all turns before it as well.

    messages: of the whole prompt, as clients send them.
    """

    session: int
    at_s: float
    system: int
    system_tokens: int
    prompt_tokens: int
    answer_tokens: int
    prefix: Prefix
    messages: tuple[dict[str, str], ...] = field(repr=False)

    def blocks(self, tokens: int) -> list[Block]:
        """Return the whole blocks of the first tokens of the conversation, the answer to this turn included."""
        shared = self.system_tokens // BLOCK
        return [
            ("system", self.system, place) if place < shared else ("session", self.session, place)
            for place in range(tokens // BLOCK)
        ]


def text(seed: int, tokens: int) -> str:
    """Return as many bytes as these tokens have."""
    return random.Random(seed).randbytes(tokens * BYTES_PER_TOKEN // 2).hex()


class Workload:
    """The sessions of a load, each a list of turns; the same for every router.

    sessions_per_s: conversations that begin. hot_per_s: single questions behind one system prompt, in bursts of `burst`
    at once. speeds: of the groups, 1 is the usual one.
    """

    def __init__(
        self,
        name: str,
        *,
        seconds: float,
        sessions_per_s: float,
        hot_per_s: float,
        seed: int,
        burst: int = 1,
        speeds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        self.name, self.seconds, self.speeds = name, seconds, speeds
        self.sessions: list[list[Turn]] = []
        dice = random.Random(seed)
        sizes = [dice.randrange(1000, 4000) for _ in range(12)]
        shares = [1 / (place + 1) for place in range(len(sizes))]
        for at_s in _arrivals(dice, sessions_per_s, seconds):
            system = dice.choices(range(len(sizes)), shares)[0]
            self._add(dice, at_s, system, sizes[system], turns=min(10, 1 + int(dice.expovariate(1 / 4))), document=4000)
        for at_s in _arrivals(dice, hot_per_s / burst, seconds):
            for _ in range(burst):
                self._add(dice, at_s, len(sizes), 8000, turns=1, document=250)

    def _add(
        self, dice: random.Random, at_s: float, system: int, system_tokens: int, turns: int, document: int
    ) -> None:
        number = len(self.sessions)
        messages: list[dict[str, str]] = [{"role": "system", "content": text(system, system_tokens)}]
        tokens = system_tokens
        found: list[Turn] = []
        for turn in range(turns):
            answer = min(1000, 20 + int(dice.expovariate(1 / 200)))
            mean = document if turn == 0 else 250
            question = 40 + min(5 * mean, int(dice.expovariate(1 / mean)))
            messages.append({"role": "user", "content": text(1000 * number + 2 * turn + 100, question)})
            tokens += question
            prefix = prefix_of([messages], KEY)
            found.append(Turn(number, at_s, system, system_tokens, tokens, answer, prefix, tuple(messages)))
            messages.append({"role": "assistant", "content": text(1000 * number + 2 * turn + 101, answer)})
            tokens += answer
            at_s += 5 + dice.expovariate(1 / 20)
        self.sessions.append(found)


def ideal(came: Iterable[tuple[float, Turn]], *, to_s: float = inf) -> float:
    """Return the share of prompt tokens that one group with an endless cache would have found computed.

    came: turns and the second of the load at which each came, in that order; those from WARM_S to to_s count. A load
    ends in the middle of conversations, and later turns find the most: those that were never asked must not be there.
    """
    seen: set[Block] = set()
    hits = total = 0
    for at_s, turn in came:
        if WARM_S <= at_s <= to_s:
            hits += BLOCK * sum(block in seen for block in turn.blocks(turn.prompt_tokens - 1))
            total += turn.prompt_tokens
        seen.update(turn.blocks(turn.prompt_tokens + turn.answer_tokens))
    return hits / total


def _arrivals(dice: random.Random, per_s: float, seconds: float) -> Iterator[float]:
    at_s = 0.0
    while per_s > 0:
        at_s += dice.expovariate(per_s)
        if at_s >= seconds:
            return
        yield at_s
