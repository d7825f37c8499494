"""Raw bytes of HTTP, honest ones and what becomes of them: the same dice give the same bytes."""

import json
import random
import re
from collections.abc import Sequence

MODEL = "glm-nano"
KEY = "glm-fuzz-key"
CANARY = "canary-7f3a"
MOST_BYTES = 96 * 1024

_CHAT = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": CANARY}], "max_tokens": 3}).encode()
_STREAM = json.dumps({"model": MODEL, "prompt": CANARY, "stream": True, "max_tokens": 3}).encode()
_MESSAGE = json.dumps({"model": MODEL, "max_tokens": 3, "messages": [{"role": "user", "content": CANARY}]}).encode()
_AUTH = b"authorization: Bearer " + KEY.encode() + b"\r\n"


def _request(line: bytes, *headers: bytes, body: bytes | None = None, host: bool = True) -> bytes:
    lines = [line, *([b"host: glm"] if host else []), *headers]
    if body is not None:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n" + _AUTH + b"\r\n" + (body or b"")


def _chunked(line: bytes, body: bytes, size: int = 16, trailer: bytes = b"") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    wrapped = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return _request(line, b"transfer-encoding: chunked") + wrapped + b"0\r\n" + trailer + b"\r\n"


def seeds() -> list[bytes]:
    """Return honest requests of every kind that the edge tells apart."""
    chat = b"POST /v1/chat/completions HTTP/1.1"
    whole = _request(chat, b"content-type: application/json", body=_CHAT)
    health = _request(b"GET /health HTTP/1.1")
    return [
        whole,
        _request(b"POST /v1/completions HTTP/1.1", body=_STREAM),
        _request(b"POST /v1/messages HTTP/1.1", b"anthropic-version: 2023-06-01", body=_MESSAGE),
        _request(b"POST /api/paas/v4/chat/completions HTTP/1.1", body=_CHAT),
        _request(b"POST /tokenize HTTP/1.1", body=json.dumps({"model": MODEL, "prompt": CANARY}).encode()),
        _request(b"POST /v1/responses HTTP/1.1", body=json.dumps({"model": MODEL, "input": CANARY}).encode()),
        _chunked(chat, _CHAT),
        _chunked(chat, _CHAT, 1000, b"x-trailer: 1\r\n"),
        health,
        _request(b"HEAD /v1/models HTTP/1.1"),
        _request(b"GET /v1/models HTTP/1.1", b"anthropic-version: 2023-06-01"),
        _request(f"GET /v1/models/{MODEL} HTTP/1.1".encode()),
        _request(b"GET /v1/responses/resp_g0_1?stream=true HTTP/1.1"),
        _request(b"DELETE /v1/responses/resp_g0_1 HTTP/1.1"),
        _request(b"GET /v1/usage?start=2026-11-01 HTTP/1.1"),
        _request(b"OPTIONS /v1/models HTTP/1.1", b"origin: https://a.example", b"access-control-request-method: GET"),
        _request(b"GET http://glm/version HTTP/1.1"),
        _request(b"GET /health HTTP/1.0", b"connection: keep-alive"),
        _request(b"GET /health HTTP/1.0", host=False),
        _request(chat, b"expect: 100-continue", body=_CHAT),
        _request(chat, b"upgrade: h2c", b"connection: Upgrade, HTTP2-Settings", b"http2-settings: AA", body=_CHAT),
        _request(b"GET /health HTTP/1.1", b"connection: close", b"x-request-id: mine", b"cookie: a=b"),
        health + whole + health,
        whole + whole,
        b"\r\n\r\n" + health,
        _request(chat, b"content-encoding: identity", body=_CHAT),
    ]


_TOKENS = (
    b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"\n\n", b"\x00", b"\xff", b"\xc3\xa9", b"\x80", b" ", b"\t", b"  ",
    b":", b";", b",",
    b"0\r\n\r\n", b"0\r\n", b"5\r\nhello\r\n", b"fffffffffffffffff\r\n", b"-1\r\n", b"0x5\r\n",
    b"5;x=y\r\n", b"\r\n 5\r\n",
    b"transfer-encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"transfer-encoding : chunked\r\n",
    b"transfer-encoding:\x0bchunked\r\n", b"content-length: 5\r\n", b"Content-Length: 0\r\n",
    b"content-length: +5\r\n",
    b"content-length: 99999999999999999999\r\n", b"content-length: 16777217\r\n", b"content-encoding: gzip\r\n",
    b"expect: 100-continue\r\n", b"upgrade: websocket\r\n", b"connection: close\r\n", b"connection: keep-alive\r\n",
    b"connection: upgrade\r\n", b"host: b\r\n", b"host:\r\n", b"x-glm-gateway: t\r\n", b"x-glm-role: admin\r\n",
    b"x-glm-tenant: a\r\n", b"x-glm-frames: 1\r\n", b"x-request-id: \x7f\r\n", b"authorization: Bearer x\r\n",
    b"authorization: Basic x\r\n", b"x-api-key: x\r\n", b"origin: https://a.example\r\n", b"x: a\r\n b\r\n",
    b"te: trailers\r\n",
    b"anthropic-version: 2023-06-01\r\n", b"content-type: application/x-glm-continued\r\n", b"http2-settings: A\r\n",
    b"x: " + b"y" * 9000 + b"\r\n", b"x: y\r\n" * 130,
    b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"x-glm-context-tokens: 1\r\n",
    b"x-glm-max-thinking: 0\r\n", b"x-glm-auto-thinking: off\r\n", b"x-glm-model: x\r\n", b"x-glm-policy: {}\r\n",
    b"GET ", b"POST ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE ", b"PUT ", b"M-SEARCH ", b"get ",
    b"//", b"/../", b"/./", b"%2e%2e/", b"%2f", b"%00", b"%0d%0a", b"%ff", b"%", b"?", b"#", b"*", b"\\",
    b"@", b"http://g0/",
    b"/load", b"/metrics", b"/v1/models/", b"/v1/responses/", b"/v1/chat/completions", b"/docs",
    b"/openapi.json", b"/version",
    b'{"model":', b'"model":"x"', b'"stream":true', b"[" * 70, b"{}", b"[]", b"1" * 500, b"1e999", b"NaN",
    b'"\\ud800"',
    b'"n":99', b'"priority":-1', b'"max_tokens":0', b'"previous_response_id":"resp_g0_1"', b"null", b'"',
)  # fmt: skip
_LINES = [token[:-2] for token in _TOKENS if token.endswith(b"\r\n") and b":" in token]
_LENGTH = re.compile(rb"(?i)(content-length: *)\d+")


def mutated(dice: random.Random, honest: Sequence[bytes], kept: Sequence[bytes]) -> bytes:
    """Return an honest request, or one that was kept, with something done to it: anywhere, or in one part of it.

    Most of what is changed anywhere is refused at once; what is changed in one part gets further.
    """
    corpus = honest if dice.random() < 0.6 or not kept else kept
    data = bytearray(dice.choice(corpus))
    times = dice.choice((1, 1, 1, 2, 2, 3, 5))
    match dice.choices(("target", "lines", "body", "all"), (20, 25, 30, 25))[0]:
        case "target":
            method, space, rest = data.partition(b" ")
            target, sign, rest = rest.partition(b" HTTP/")
            data = method + space + _changed_often(dice, target, corpus, times) + sign + rest
        case "lines":
            for _ in range(times):
                data = _with_other_lines(dice, data)
        case "body":
            head, sign, body = data.partition(b"\r\n\r\n")
            data = _with_right_length(head + sign + _changed_often(dice, body, corpus, times))
        case _:
            data = _changed_often(dice, data, corpus, times)
            if dice.random() < 0.4:
                data = _with_right_length(data)
    return bytes(data[:MOST_BYTES])


def _with_other_lines(dice: random.Random, data: bytearray) -> bytearray:
    """Put a line into the head, or take one out, or say one twice."""
    head, sign, body = data.partition(b"\r\n\r\n")
    first, *lines = bytes(head).split(b"\r\n")
    at = dice.randrange(len(lines) + 1)
    match dice.randrange(5):
        case 0 if lines:
            del lines[dice.randrange(len(lines))]
        case 1 if lines:
            lines.insert(at, dice.choice(lines))
        case _:
            lines.insert(at, dice.choice(_LINES))
    return bytearray(b"\r\n".join([first, *lines])) + sign + body


def _changed_often(dice: random.Random, data: bytearray, corpus: Sequence[bytes], times: int) -> bytearray:
    for _ in range(times):
        data = _changed(dice, data, corpus)
    return data


def _with_right_length(data: bytearray) -> bytearray:
    head, sign, body = data.partition(b"\r\n\r\n")
    return bytearray(_LENGTH.sub(lambda found: found[1] + b"%d" % len(body), head, count=1)) + sign + body


def _changed(dice: random.Random, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
    at = dice.randrange(len(data) + 1)
    end = min(len(data), at + int(dice.expovariate(1 / 12)) + 1)
    match dice.randrange(10):
        case 0 | 1:
            data[at:end] = _other_byte(dice, data[at:end])
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * dice.choice((1, 2, 3, 40))
        case 4 | 5:
            token = dice.choice(_TOKENS)
            place = _fitting(dice, data, token) if dice.random() < 0.8 else at
            data[place:place] = token
        case 6:
            data[at:end] = dice.choice(_TOKENS)
        case 7:
            return _with_lines_moved(dice, data)
        case 8:
            other = dice.choice(corpus)
            return data[:at] + bytearray(other[dice.randrange(len(other) + 1) :])
        case 9:
            return _with_another_number(dice, data)
    return data


def _fitting(dice: random.Random, data: bytearray, token: bytes) -> int:
    """Return where a token makes sense: lines between lines, paths in a path, values behind a comma or a brace."""
    signs = (
        b"\r\n" if token.endswith(b"\r\n") else b"/" if token[:1] in b"/%?#" else b"{" if token[:1] in b'"{[' else b" "
    )
    places = [found.end() for found in re.finditer(re.escape(signs), bytes(data))]
    return dice.choice(places) if places else 0


def _other_byte(dice: random.Random, data: bytearray) -> bytearray:
    if data:
        data[0] = dice.choice((data[0] ^ (1 << dice.randrange(8)), dice.randrange(256)))
    return data


def _with_lines_moved(dice: random.Random, data: bytearray) -> bytearray:
    lines = bytes(data).split(b"\r\n")
    first, second = dice.randrange(len(lines)), dice.randrange(len(lines))
    if dice.random() < 0.5:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines.insert(first, lines[second])
    return bytearray(b"\r\n".join(lines))


def _with_another_number(dice: random.Random, data: bytearray) -> bytearray:
    numbers = list(re.finditer(rb"\d+", bytes(data)))
    if numbers:
        found = dice.choice(numbers)
        number = dice.choice((b"0", b"1", b"-1", b"65536", b"4294967296", b"9" * 30, b"07", b"1.5"))
        data[found.start() : found.end()] = number
    return data


def parts_of(dice: random.Random, data: bytes) -> list[bytes]:
    """Return the bytes as they are sent: mostly at once, else in up to four parts."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 0, 1, 2, 3))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]
