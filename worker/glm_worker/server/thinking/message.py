"""The user's last message, taken apart: what is to be done, and what it is about.

Of a long message the first 1,024 and the last 3,072 characters are read. No pattern here may look far ahead from many
places: a message of 4 KB is made to cost seconds otherwise. So the classes of quotations hold both of their ends, and
what repeats is either bounded or ends with its line.
"""

import re
from dataclasses import dataclass

from glm_worker.server.thinking.vocabulary import FACT, LIGHT, MATHS, WEIGH, WHY, WORK

_HEAD, _TAIL = 1024, 3072  # characters
_MOST_WORDS = 400
_LEAST_MATERIAL = 12  # characters
_CLOSING_WORDS, _BEGINNING = 12, 16
_INSTRUCTION, _INSTRUCTION_WORDS = 120, 20  # how much of a part tells what is to be done

WORD = re.compile(r"[^\W\d_][\w'’-]*")
_FENCE = "```"
_QUOTED = re.compile(r'"[^"\n]{12,}"|«[^«»]{8,}»|“[^“”]{12,}”|„[^„“”]{12,}[“”]|「[^「」]{4,}」')
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
    r"Traceback|\bpanic:|\w(?:Error|Exception)\b|\bERROR\b|\berror\[|\bFAILED\b|\bFAIL\b|segfault|segmentation"
    r"|goroutine \d|\bat \S{1,200} \(|\w\.\w{1,4}:\d|actual time=|\bNaN\b|deadlock|undefined"
)
_SENTENCE_END = re.compile(r"[.!?;](?:\s|$)|[。！？；؟]|\n")
_FULL_STOP = re.compile(r"\.\s")
_MATERIAL = re.compile(r":(?=\s|$)|：|\n| \"\" ")  # where the material begins that an instruction is about


def num_troubles(text: str) -> int:
    """Return how many signs of something that went wrong a text has."""
    return len(_TROUBLE.findall(text))


@dataclass(frozen=True, slots=True)
class Message:
    """What the features are made of."""

    text: str  # its beginning and its end
    lower: str  # what of it may say what is to be done, in lower case
    words: list[str]  # of that
    num_words: int  # that are no material, about; Chinese and Japanese characters make more than half a word each
    num_words_of_material: int
    num_sentences: int
    num_code_lines: int
    num_operations: int  # of mathematics
    num_numbers: int  # different ones
    quotation: float  # the share of quotations
    is_light: bool  # it opens or closes with work of one step, and with no other
    is_handed_over: bool  # a text or code stands behind a short instruction that names no work
    opens_as_fact: bool

    @classmethod
    def of(cls, message: str) -> "Message":
        text = message if len(message) <= _HEAD + _TAIL else f"{message[:_HEAD]}\n{message[-_TAIL:]}"
        parts = text.split(_FENCE)
        told, fenced = " ".join(parts[::2]), parts[1::2]
        prose = _QUOTED.sub(' "" ', told)  # what is quoted is not what is to be done
        lower = prose.lower().strip()
        sentences = [part for part in _SENTENCE_END.split(lower) if part.strip()]
        opening = _Instruction.of(_MATERIAL.split(lower, maxsplit=1)[0])
        first = _Instruction.of(sentences[0] if sentences else "")
        closing = _Instruction.of(sentences[-1][-_INSTRUCTION:] if len(sentences) > 1 else "")
        closing_works = closing.works and (closing.asks or lower.endswith(("?", "？")))
        has_material = bool(fenced) or len(told) > len(prose) or len(opening.text) < len(lower) - _LEAST_MATERIAL
        is_short = len(opening.text) <= _INSTRUCTION and len(closing.words) <= _CLOSING_WORDS
        is_handed_over = (
            has_material
            and is_short
            and not (opening.works or closing_works or num_troubles(text))
            and _FULL_STOP.search(opening.text) is None
        )
        is_light = (first.is_light and not first.works and not closing_works) or (
            closing.is_light and not closing.works
        )
        whole = len(told.split()) + int(len(_WIDE.findall(told)) * 0.6) + max(len(message) - len(text), 0) // 6
        numbers = prose
        if is_light or is_handed_over:
            numbers = f"{min(opening.text, first.text, key=len)} {closing.text}"
            lower = numbers
            told_words = len(lower.split()) + int(len(_WIDE.findall(lower)) * 0.6)
        else:
            told_words = whole
        return cls(
            text=text,
            lower=lower,
            words=_some(WORD.findall(lower)),
            num_words=told_words,
            num_words_of_material=whole - told_words,
            num_sentences=1 if is_light or is_handed_over else len(sentences),
            num_code_lines=sum(part.count("\n") for part in fenced) + len(_CODE_LINE.findall(told)),
            num_operations=len(_OPERATION.findall(numbers)),
            num_numbers=len(set(_NUMBER.findall(numbers))),
            quotation=(len(told) - len(prose)) / max(1, len(told)),
            is_light=is_light,
            is_handed_over=is_handed_over,
            opens_as_fact=FACT.count(opening.words[:2], opening.text if _WIDE.search(opening.text) else "") > 0,
        )


@dataclass(frozen=True, slots=True)
class _Instruction:
    """A part of a message that may say what is to be done."""

    text: str
    words: list[str]
    is_light: bool
    works: bool
    asks: bool  # it begins with what makes it work

    @classmethod
    def of(cls, text: str) -> "_Instruction":
        start = text[:_INSTRUCTION]
        words = WORD.findall(start)[:_INSTRUCTION_WORDS]
        vocabularies = (WORK, WHY, WEIGH, MATHS)
        works = any(each.count(words, start) for each in vocabularies)
        begins = text[:_BEGINNING]
        asks = bool(_WIDE.search(start)) or any(each.count(words[:2], begins) for each in vocabularies)
        return cls(text, words, LIGHT.count(words, start) > 0, works, asks)


def _some(words: list[str]) -> list[str]:
    """Return the words, of many only the first and the last."""
    half = _MOST_WORDS // 2
    return words if len(words) <= _MOST_WORDS else words[:half] + words[-half:]
