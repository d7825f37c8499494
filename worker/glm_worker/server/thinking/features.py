"""What can be seen of a conversation without understanding it: the numbers that `auto` decides by.

The cost is bounded: of the user's last message at most its first 1,024 and last 3,072 characters are read, of a system
message the first 1,024, of each of the last four results of tools the last 512. Of the rest only the length counts.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from glm_worker.server.thinking.vocabulary import (
    AGENT,
    FACT,
    LIGHT,
    MATHS,
    NARROW,
    SMALL_TALK,
    TECHNICAL,
    WEIGH,
    WHY,
    WORK,
)

_HEAD, _TAIL, _SYSTEM, _RESULT = 1024, 3072, 1024, 512
_MOST_WORDS = 400
_MOST_RESULTS = 4
_INSTRUCTION, _INSTRUCTION_WORDS = 120, 14  # how much of a line tells what is to be done
_NARROW_CHARS, _NARROW_WORDS = 240, 40  # a system message of one step says so at once

_FENCE = "```"
# No pattern may look far ahead from many places: a message of 4 KB is made to cost seconds otherwise. So the classes of
# quotations hold both of their ends, and what repeats is either bounded or ends with its line.
_QUOTED = re.compile(r'"[^"\n]{12,}"|«[^«»]{8,}»|“[^“”]{12,}”|„[^„“”]{12,}[“”]|「[^「」]{4,}」|「[^「」]{4,}」')
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")  # written without spaces
_OPERATION = re.compile(
    r"[\w)\]]\s?(?:\^|[*=<>≤≥]=?|[+−×÷])\s?[\w(\[-]|\b[fgx]\([a-z]|[√∑∫∞≤≥≠π]|\\(?:frac|sum|int|sqrt)\b"
)
_CODE_LINE = re.compile(
    r"^(?:[ \t]*(?:[{}]|return\b|def \w|import \w|SELECT\b|UPDATE\b|#include\b)"
    r"|.*(?:[;{]|\)[ \t]*=>)[ \t]*$|[+-][^\s+-].*[({=])",
    re.MULTILINE,
)
_TROUBLE = re.compile(
    r"Traceback|\bpanic:|\w(?:Error|Exception)\b|\bERROR\b|\bFAILED\b|segfault|segmentation|goroutine \d"
    r"|\bat \S{1,200} \(|\w\.\w{1,4}:\d|actual time=|\bNaN\b|deadlock|undefined"
)
_COLON = re.compile("[:：]")
_SENTENCE_END = re.compile(r"[.!?;](?:\s|$)|[。！？；]|\n")


class PastTurn(NamedTuple):
    """One turn of the conversation so far."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    has_reasoning: bool = False  # whether it came with a thought
    num_calls: int = 0  # of tools


@dataclass(frozen=True, slots=True)
class Features:
    """Numbers from 0, where there is nothing of it, to 1. Their names are those of the weights (score.py)."""

    length: float  # of the user's last message, without code: 1 from 500 words on
    sentences: float  # of it: 1 from 6 on
    brevity: float  # 1 up to 8 words, 0 from 20, with code, and where the system message is an agent's
    quotation: float  # the share of it that is quoted or stands after a colon
    numbers: float  # different ones in it: 1 from 8 on
    mathematics: float  # operations and words: 1 from 4 on
    code: float  # lines: 1 from 8 on
    technical: float  # words of computing: 1 from 4 on
    trouble: float  # traces, failed tests, places in files: 1 from 2 on
    work: float  # words for work of several steps: 1 from 3 on
    weighing: float  # words for decisions: 1 from 3 on
    causes: float  # whether it asks why
    light: float  # whether it, or the system message, asks for work of one step
    fact: float  # whether it is a brief question after a fact
    small_talk: float  # whether it is a greeting or thanks
    tools: float  # on offer: 1 from 15 on
    results: float  # what tools said since then, in length: 1 from 1,000 characters on
    answered: float  # whether tools answered, short and without trouble
    agent: float  # the system message speaks of work over many steps
    narrow: float  # the system message leaves one step to do
    follow_up: float  # there is an answer before it
    thought_before: float  # and one with a thought


def features_of(turns: Sequence[PastTurn], num_tools: int) -> Features:
    """Return the features of a conversation that the assistant is to go on with. num_tools: how many are on offer."""
    at = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=-1)
    message = turns[at].text if at >= 0 else ""
    before, since = turns[: max(at, 0)], turns[at + 1 :]
    results = [turn.text for turn in since if turn.role == "tool"]
    recent = [text[-_RESULT:] for text in results[-_MOST_RESULTS:]]
    system = next((turn.text[:_SYSTEM].lower() for turn in reversed(turns) if turn.role == "system"), "")
    system_words = _WORD.findall(system)
    agent = _share(AGENT.count(system_words, system), 2)
    narrow = _share(NARROW.count(system_words[:_NARROW_WORDS], system[:_NARROW_CHARS]), 2)
    seen = _Message.of(message)
    brevity = 0.0 if agent == 1 or seen.num_code_lines else _share(20 - seen.num_words, 12)
    is_brief = brevity >= 0.5 and seen.num_sentences <= 2
    does_one_step = seen.is_light or narrow == 1
    words, lower = ([], "") if does_one_step else (seen.words, seen.lower)
    num_work = WORK.count(words, lower)
    operations = 0 if does_one_step else len(_OPERATION.findall(seen.prose))
    length_of_results = sum(map(len, results))
    trouble = len(_TROUBLE.findall(seen.text)) + sum(len(_TROUBLE.findall(text)) for text in recent)
    return Features(
        length=_share(math.log1p(seen.num_words), math.log1p(500)),
        sentences=_share(seen.num_sentences - 1, 5),
        brevity=brevity,
        quotation=seen.quotation,
        numbers=_share(len(set(_NUMBER.findall(seen.prose))), 8),
        mathematics=_share(operations + MATHS.count(words, lower), 4),
        code=_share(seen.num_code_lines, 8),
        technical=_share(TECHNICAL.count(words, lower), 4),
        trouble=_share(trouble, 2),
        work=_share(num_work, 3),
        weighing=_share(WEIGH.count(words, lower), 3),
        causes=_share(WHY.count(words, lower), 1),
        light=float(does_one_step),
        fact=float(is_brief and seen.opens_as_fact and not operations and not num_work),
        small_talk=float(is_brief and SMALL_TALK.count(seen.words, seen.lower) > 0),
        tools=_share(math.log1p(num_tools), math.log1p(15)),
        results=_share(math.log1p(length_of_results), math.log1p(1000)),
        answered=float(bool(results) and length_of_results < 200 and trouble == 0),
        agent=agent,
        narrow=narrow,
        follow_up=float(any(turn.role == "assistant" for turn in before)),
        thought_before=float(any(turn.has_reasoning for turn in before)),
    )


@dataclass(frozen=True, slots=True)
class _Message:
    """The user's last message, read as far as it is read."""

    text: str  # its beginning and its end
    prose: str  # of these what is no code and no quotation
    lower: str  # of the prose what tells the work, in lower case
    words: list[str]  # of that
    num_words: int  # in the whole message, about; Chinese and Japanese characters make more than half a word each
    num_sentences: int
    num_code_lines: int
    quotation: float
    is_light: bool  # it opens, or closes on a line of its own, with work of one step
    opens_as_fact: bool

    @classmethod
    def of(cls, message: str) -> "_Message":
        text = message if len(message) <= _HEAD + _TAIL else f"{message[:_HEAD]}\n{message[-_TAIL:]}"
        parts = text.split(_FENCE)
        told, fenced = " ".join(parts[::2]), parts[1::2]
        prose = _QUOTED.sub(' "" ', told)
        lower = prose.lower()
        lines = lower.strip().splitlines() or [""]
        opening = _Instruction.of(_COLON.split(lines[0], maxsplit=1)[0][:_INSTRUCTION])
        closing = _Instruction.of(lines[-1][-_INSTRUCTION:] if len(lines) > 1 else "")
        is_light = not opening.works and (opening.is_light or (closing.is_light and not closing.works))
        after_colon = len(_COLON.split(prose, maxsplit=1)[-1]) if _COLON.search(prose) else 0
        quoted = len(told) - len(prose) + (after_colon if opening.is_light else 0)
        wide = len(_WIDE.findall(told))
        in_code = sum(part.count("\n") for part in fenced) + len(_CODE_LINE.findall(told))
        beyond = len(message) - len(text)
        return cls(
            text=text,
            prose=prose,
            lower=lower,
            words=_some(_WORD.findall(lower)),
            num_words=len(told.split()) + int(wide * 0.6) + max(beyond, 0) // 6,
            num_sentences=sum(1 for part in _SENTENCE_END.split(prose) if part.strip()),
            num_code_lines=in_code,
            quotation=_share(quoted, max(1, len(told))),
            is_light=is_light,
            opens_as_fact=FACT.count(opening.words[:2], opening.text if wide else "") > 0,
        )


@dataclass(frozen=True, slots=True)
class _Instruction:
    """A line that may say what is to be done."""

    text: str
    words: list[str]
    is_light: bool
    works: bool

    @classmethod
    def of(cls, text: str) -> "_Instruction":
        words = _WORD.findall(text)[:_INSTRUCTION_WORDS]
        return cls(text, words, LIGHT.count(words, text) > 0, WORK.count(words, text) > 0)


def _some(words: list[str]) -> list[str]:
    """Return the words, of many only the first and the last."""
    half = _MOST_WORDS // 2
    return words if len(words) <= _MOST_WORDS else words[:half] + words[-half:]


def _share(count: float, full: float) -> float:
    return min(1.0, max(0.0, count / full))
