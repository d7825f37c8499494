"""Hostile bodies, made of valid ones. The same seed and number give the same bytes."""

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fuzz.seeds import Seed

Json = dict[str, Any]
MOST_VALUES = 250_000
Place = tuple[Any, Any]  # a container, and the key or the index in it

_STRINGS = (
    "", " ", "\x00", "\u200b\u202e\ufeff", "é́", "😀" * 20, "𐍈", "\U0010ffff", "a" * 3000, "\\", '"', "\n" * 50,
    "<|user|>", "<think>", "</think>", "<|endoftext|>", "<tool_call>", "/nothink", "{{ 7 * 7 }}", "{% raw %}",
    "${jndi:ldap://x}", "../../etc/passwd", "__import__('os')", "%s%n%x", "(a+)+$", "[" * 500, "(?=x)", "a{1,99999}",
    "null", "true", "NaN", "1e999", "auto", "required", "none", "tool", "system", "root", "image_url", "text",
)  # fmt: skip
_NUMBERS = (
    0, -1, 1, 2, 0.5, -0.0, 1e308, -1e308, 5e-324, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, 10**400, 3.5, 1e-9,
)  # fmt: skip
_WORDS = (None, True, False, [], {}, [[]], [{}], [None], {"": None}, {"type": "text"}, {"role": "user"}, [[[[]]]])
_NAMES = (
    "functions", "chat_template", "chat_template_kwargs", "prompt_embeds", "best_of", "guided_regex", "guided_json",
    "guided_choice", "guided_grammar", "structured_outputs", "response_format", "thinking", "reasoning", "n", "echo",
    "suffix", "logprobs", "top_logprobs", "stream", "audio", "modalities", "", "__class__", "constructor",
    "model_config", "é", "max_tokens", "max_completion_tokens", "$ref", "type", "role", "name", "content", "tool_calls",
    "tools", "previous_response_id", "background", "conversation", "include", "stop", "ignore_eos", "deadline_s",
    "input",
)  # fmt: skip
_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "root", "", "User")
_PARTS = (
    {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}},
    {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
    {"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}},
    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    {"type": "text", "text": None},
    {"type": "text"},
    {"text": "no type"},
    "bare text",
)
_ARGUMENTS = (
    "", "{", "[]", "null", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a": 1, "a": 2}', "[" * 300, '"text"',
    "{}}",
    '{"' + "k" * 2000 + '": 1}', '{"__proto__": {"x": 1}}', '{"city": {"nested": [1, [2, [3]]]}}',
)  # fmt: skip
_SCHEMAS = (
    True, False, {"type": "nonsense"}, {"type": ["string", 7]}, {"pattern": "(a+)+$", "type": "string"},
    {"pattern": "[", "type": "string"}, {"$ref": "#/$defs/missing"}, {"$ref": "#"}, {"$ref": "http://127.0.0.1:9/x"},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"enum": []}, {"enum": [{}, [], None, 1.5]}, {"allOf": [False]}, {"anyOf": []}, {"properties": []},
    {"required": "x"},
    {"type": "object", "properties": {"": {}, "é": {"type": "string"}}, "additionalProperties": {"$ref": "#"}},
    {"type": "array", "minItems": 10**9}, {"type": "string", "minLength": 10**9},
    {"type": "integer", "minimum": 10**30}, {"type": "object", "minProperties": -1},
    {"items": [{"items": [{"items": []}]}]}, {"const": "\x00"},
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One hostile body. says: what was done to it; each step is told. keeps_places: no value is at another's place."""

    number: int
    path: str
    body: bytes
    says: tuple[str, ...]
    keeps_places: bool


def case(seeds: list[Seed], seed: int, number: int) -> Case:
    """Return hostile body number so-and-so. The endpoints take turns."""
    dice = random.Random(f"{seed}/{number}")
    by_path: dict[str, list[Seed]] = {}
    for each in seeds:
        by_path.setdefault(each.path, []).append(each)
    paths = sorted(by_path)
    path = paths[number % len(paths)]
    body: Any = copy.deepcopy(dice.choice(by_path[path]).body)
    says = []
    for _ in range(dice.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        step = dice.choice(_STEPS)
        body = step(body, dice)
        if _is_huge(body):  # what was repeated was put into itself: gigabytes of text
            body, says = copy.deepcopy(by_path[path][0].body), []
        says.append(step.__name__.lstrip("_"))
    text = _text(body, dice)
    if dice.random() < 0.25:
        bytes_step = dice.choice(_BYTES)
        text = bytes_step(text, dice)
        says.append(bytes_step.__name__.lstrip("_"))
    moved = {"rename", "swap", "wrap", "duplicate_key", "flip_bytes", "cut_out"}
    return Case(number, path, text, tuple(says), keeps_places=not moved & set(says))


def _is_huge(value: Any) -> bool:
    """Tell whether there are more values in this than any bound of the server."""
    stack, count = [value], 0
    while stack and count <= MOST_VALUES:
        each = stack.pop()
        inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        count += len(inner)
        stack.extend(inner)
    return count > MOST_VALUES


def _places(value: Any) -> list[Place]:
    found: list[Place] = []
    stack = [value]
    while stack:
        each = stack.pop()
        keys: Any = each.keys() if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        for key in keys:
            found.append((each, key))
            stack.append(each[key])
    return found


def _place(body: Any, dice: random.Random) -> Place:
    holder = {"": body}
    places = _places(body)
    return dice.choice(places) if places else (holder, "")


def _value(dice: random.Random) -> Any:
    pool = dice.choice((_STRINGS, _NUMBERS, _WORDS, _ROLES, _PARTS, _ARGUMENTS, _SCHEMAS))
    return copy.deepcopy(dice.choice(pool))


def _drop(body: Any, dice: random.Random) -> Any:
    container, key = _place(body, dice)
    del container[key]
    return body


def _replace(body: Any, dice: random.Random) -> Any:
    container, key = _place(body, dice)
    container[key] = _value(dice)
    return body


def _null(body: Any, dice: random.Random) -> Any:
    container, key = _place(body, dice)
    container[key] = None
    return body


def _retype(body: Any, dice: random.Random) -> Any:
    """Say the same in another type."""
    container, key = _place(body, dice)
    value = container[key]
    match value:
        case bool():
            container[key] = str(value).lower()
        case int() | float():
            container[key] = str(value)
        case str():
            container[key] = dice.choice(([value], {"text": value}, len(value)))
        case list():
            container[key] = dict(enumerate(map(str, range(len(value)))))
        case dict():
            container[key] = [value]
        case _:
            container[key] = 0
    return body


def _rename(body: Any, dice: random.Random) -> Any:
    named = [(container, key) for container, key in _places(body) if isinstance(container, dict)]
    if named:
        container, key = dice.choice(named)
        container[dice.choice((*_NAMES, f"{key}s", str(key).upper()[:40]))] = container.pop(key)
    return body


def _swap(body: Any, dice: random.Random) -> Any:
    places = _places(body)
    if len(places) > 1:
        (one, key), (other, other_key) = dice.sample(places, 2)
        one[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(one[key])
    return body


def _wrap(body: Any, dice: random.Random) -> Any:
    container, key = _place(body, dice)
    value = container[key]
    for _ in range(dice.choice((1, 2, 40, 70, 200))):
        value = dice.choice(([value], {"a": value}))
    container[key] = value
    return body


def _add(body: Any, dice: random.Random) -> Any:
    objects = [each for each in _all(body) if isinstance(each, dict)]
    if objects:
        dice.choice(objects)[dice.choice(_NAMES)] = _value(dice)
    return body


def _all(body: Any) -> list[Any]:
    return [body, *(container[key] for container, key in _places(body))]


def _repeat(body: Any, dice: random.Random) -> Any:
    every = _all(body)
    lists = [each for each in every if isinstance(each, list) and each]
    if lists and len(every) < 2000:  # many times many would be gigabytes
        chosen = dice.choice(lists)
        chosen.extend([dice.choice(chosen)] * dice.choice((1, 20, 600, 5000)))
    return body


def _empty(body: Any, dice: random.Random) -> Any:
    containers = [each for each in _all(body) if isinstance(each, list | dict) and each]
    if containers:
        dice.choice(containers).clear()
    return body


def _role(body: Any, dice: random.Random) -> Any:
    speaking = [each for each in _all(body) if isinstance(each, dict) and "role" in each]
    if speaking:
        dice.choice(speaking)["role"] = dice.choice(_ROLES)
    return body


def _part(body: Any, dice: random.Random) -> Any:
    speaking = [each for each in _all(body) if isinstance(each, dict) and "content" in each]
    if speaking:
        dice.choice(speaking)["content"] = dice.choice((dice.choice(_PARTS), [dice.choice(_PARTS)]))
    return body


def _call(body: Any, dice: random.Random) -> Any:
    calling = [each for each in _all(body) if isinstance(each, dict) and "arguments" in each]
    if calling:
        dice.choice(calling)["arguments"] = dice.choice((*_ARGUMENTS, {"city": "x"}, None, 7))
    return body


def _schema(body: Any, dice: random.Random) -> Any:
    names = ("parameters", "input_schema", "schema")
    places = [(each, name) for each in _all(body) if isinstance(each, dict) for name in names if name in each]
    if places:
        container, name = dice.choice(places)
        container[name] = copy.deepcopy(dice.choice(_SCHEMAS))
        if dice.random() < 0.5:
            container[name] = {"type": "object", "properties": {"city": container[name]}}
    return body


_STEPS: tuple[Callable[[Any, random.Random], Any], ...] = (
    _drop, _replace, _replace, _null, _retype, _rename, _swap, _wrap, _add, _add, _repeat, _empty, _role, _part, _call,
    _schema,
)  # fmt: skip


def _text(body: Any, dice: random.Random) -> bytes:
    """Return the body as JSON: escaped or not, with NaN as people's encoders write it."""
    escaped = dice.random() < 0.5
    return json.dumps(body, ensure_ascii=escaped).encode("utf-8", errors="surrogatepass")


def _truncate(text: bytes, dice: random.Random) -> bytes:
    return text[: dice.randrange(len(text) + 1)]


def _with_mark(text: bytes, dice: random.Random) -> bytes:
    return b"\xef\xbb\xbf" + text


def _as_utf16(text: bytes, dice: random.Random) -> bytes:
    return text.decode("utf-8", errors="replace").encode(dice.choice(("utf-16", "utf-32", "utf-16-le")))


def _flip_bytes(text: bytes, dice: random.Random) -> bytes:
    changed = bytearray(text or b"{}")
    for _ in range(dice.choice((1, 1, 3, 10))):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def _duplicate_key(text: bytes, dice: random.Random) -> bytes:
    return text.replace(b'"model":', dice.choice((b'"model": 1, "model":', b'"stream": true, "model":')), 1)


def _lone_surrogate(text: bytes, dice: random.Random) -> bytes:
    return text.replace(b'": "', b'": "' + dice.choice((b"\\ud800", b"\\udfff", b"\xed\xa0\x80")), 1)


def _not_a_number(text: bytes, dice: random.Random) -> bytes:
    return text.replace(b": ", b": " + dice.choice((b"NaN", b"Infinity", b"-", b"01", b"1e", b"'x'")) + b", ", 1)


def _cut_out(text: bytes, dice: random.Random) -> bytes:
    at, length = dice.randrange(len(text) + 1), dice.choice((1, 5, 40))
    return text[:at] + text[at + length :]


def _trailing(text: bytes, dice: random.Random) -> bytes:
    return text + dice.choice((b"x", b"}", b"\x00", b"{}", b",", b"\n\n", b" " * 4000))


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _truncate, _with_mark, _as_utf16, _flip_bytes, _duplicate_key, _lone_surrogate, _not_a_number, _cut_out, _trailing,
)  # fmt: skip
