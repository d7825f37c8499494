"""What can be seen of a conversation without understanding it: the numbers that `auto` decides by.

The cost is bounded: of the user's last message (message.py) and of a system message the beginning and the end are read,
of each of the last four results of tools the end. Of the rest only the length counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from glm_worker.server.thinking.message import WORD, Message, num_troubles
from glm_worker.server.thinking.vocabulary import (
    AGENT,
    MATHS,
    NARROW,
    SMALL_TALK,
    TECHNICAL,
    WEIGH,
    WHY,
    WORK,
)

_SYSTEM, _RESULT, _MOST_RESULTS = 1024, 512, 4  # characters, and how many results
_NARROW_CHARS, _NARROW_WORDS = 240, 40  # a system message of one step says so at once


class PastTurn(NamedTuple):
    """One turn of the conversation so far."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    has_reasoning: bool = False  # whether it came with a thought
    num_calls: int = 0  # of tools


@dataclass(frozen=True, slots=True)
class Features:
    """Numbers from 0, where there is nothing of it, to 1. Their names are those of the weights (score.py)."""

    length: float  # of the user's last message, without code and what it hands over: 1 from 500 words on
    material: float  # of what it hands over: 1 from 2,000 words on
    sentences: float  # of it: 1 from 6 on
    brevity: float  # 1 up to 8 words, 0 from 20, and with code in it, mathematics, or an agent's system message
    quotation: float  # the share of it that is quoted
    handed_over: float  # whether it hands over a text or code, with a short word on what to do that is no work
    numbers: float  # different ones in it: 1 from 8 on
    mathematics: float  # operations and words: 1 from 4 on
    code: float  # lines: 1 from 8 on
    technical: float  # words of computing: 1 from 4 on
    trouble: float  # traces, failed tests, places in files, in results of tools as well: 1 from 2 on
    work: float  # words for work of several steps: 1 from 3 on
    weighing: float  # words for decisions: 1 from 3 on
    causes: float  # whether it asks why
    light: float  # whether it asks for work of one step
    fact: float  # whether it is a brief question after a fact
    small_talk: float  # whether it is a greeting or thanks
    tools: float  # on offer: 1 from 15 on
    rounds: float  # of calls since that message: 1 from 3 on
    results: float  # what tools said since then, in length: 1 from 1,000 characters on
    answered: float  # whether they said something short, without trouble
    agent: float  # words for work over many steps in the system message: 1 from 3 on
    narrow: float  # words for work of one step at the beginning of the system message: 1 from 2 on
    follow_up: float  # whether there is an answer before that message
    thought_before: float  # and one with a thought


def features_of(turns: Sequence[PastTurn], num_tools: int) -> Features:
    """Return the features of a conversation that the assistant is to go on with. num_tools: how many are on offer."""
    at = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=-1)
    message = Message.of(turns[at].text if at >= 0 else "")
    before, since = turns[: max(at, 0)], turns[at + 1 :]
    results = [turn.text for turn in since if turn.role == "tool"]
    length_of_results = sum(map(len, results))
    trouble = num_troubles(message.text) + sum(num_troubles(text[-_RESULT:]) for text in results[-_MOST_RESULTS:])
    system = next((turn.text[:_SYSTEM].lower() for turn in reversed(turns) if turn.role == "system"), "")
    system_words = WORD.findall(system)
    agent = _share(AGENT.count(system_words, system), 3)
    narrow = _share(NARROW.count(system_words[:_NARROW_WORDS], system[:_NARROW_CHARS]), 2)
    is_agent = agent > 0.5 and num_tools > 0
    is_narrow = narrow == 1 and not is_agent
    words, lower = ([], "") if is_narrow else (message.words, message.lower)
    num_work = WORK.count(words, lower)
    mathematics = message.num_operations + MATHS.count(words, lower) if words else 0
    has_work_at_hand = is_agent or (message.num_code_lines > 0 and not message.is_handed_over)
    is_brief = not has_work_at_hand and message.num_words <= 14 and message.num_sentences <= 2
    return Features(
        length=_share(math.log1p(message.num_words), math.log1p(500)),
        material=_share(math.log1p(message.num_words_of_material), math.log1p(2000)),
        sentences=_share(message.num_sentences - 1, 5),
        brevity=0.0 if has_work_at_hand else _share(20 - message.num_words, 12) * _share(2 - mathematics, 2),
        quotation=message.quotation,
        handed_over=float(message.is_handed_over and not is_agent),
        numbers=_share(message.num_numbers, 8),
        mathematics=_share(mathematics, 4),
        code=_share(message.num_code_lines, 8),
        technical=_share(TECHNICAL.count(words, lower), 4),
        trouble=_share(trouble, 2),
        work=_share(num_work, 3),
        weighing=_share(WEIGH.count(words, lower), 3),
        causes=_share(WHY.count(words, lower), 1),
        light=float(message.is_light or is_narrow),
        fact=float(is_brief and message.opens_as_fact and not mathematics and not num_work),
        small_talk=float(is_brief and SMALL_TALK.count(message.words, message.lower) > 0),
        tools=_share(math.log1p(num_tools), math.log1p(15)),
        rounds=_share(sum(turn.num_calls > 0 for turn in since), 3),
        results=_share(math.log1p(length_of_results), math.log1p(1000)),
        answered=float(bool(results) and length_of_results < 200 and trouble == 0),
        agent=agent,
        narrow=narrow,
        follow_up=float(any(turn.role == "assistant" for turn in before)),
        thought_before=float(any(turn.has_reasoning for turn in before)),
    )


def _share(count: float, full: float) -> float:
    return min(1.0, max(0.0, count / full))
