"""What every reply must be like, whatever was sent."""

import json
import re
from collections.abc import Iterable
from typing import Any

from fuzz.wire import Reply

ALLOWED = frozenset({200, 400, 404, 405, 408, 413, 415, 431, 501, 503, 504, 529})  # 504: a deadline that a request set
MAX_MESSAGE = 1500

# Of Python, of libraries, of this machine, of our own code.
_INTERNALS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/worker/|/usr/|glm_worker|pydantic|starlette|fastapi|uvicorn|xgrammar"
    r"|jinja|object at 0x|<class|<function|\bNoneType\b|[a-z]Error\b|Exception\b|function-(?:after|before|wrap)\["
    r"|lax-or-strict|tagged-union|Input should|errors\.|https?://[a-z]",
    re.IGNORECASE,
)
_OURS = re.compile(r"\b(?:[A-Z][a-z]+){2,}\b")  # a name of a class, where it is one of ours


def complaints(path: str, reply: Reply, *, class_names: Iterable[str] = (), secrets: Iterable[str] = ()) -> list[str]:
    """Return what is wrong with a reply. secrets: what an error must not tell back."""
    if reply.status not in ALLOWED:
        return [f"status {reply.status}"]
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if reply.status == 200:
        return _of_answer(kind, reply.body)
    if kind != "application/json":
        return [f"an error of type {kind!r}"]
    try:
        error = json.loads(reply.body)
    except ValueError:
        return ["an error that is no JSON"]
    found = [*_of_shape(path, error), *_of_headers(reply)]
    message = str(_message(error))
    if not 0 < len(message) <= MAX_MESSAGE:
        found.append(f"a message of {len(message)} characters")
    if leak := _INTERNALS.search(message):
        found.append(f"internals: {leak.group()!r}")
    if ours := set(_OURS.findall(message)) & set(class_names):
        found.append(f"names of classes: {ours}")
    found += [f"the error tells {secret!r}" for secret in secrets if secret.encode() in reply.body]
    return found


def _of_answer(kind: str, body: bytes) -> list[str]:
    if kind == "application/json":
        try:
            json.loads(body)
        except ValueError:
            return ["an answer that is no JSON"]
        return []
    if kind != "text/event-stream":
        return [f"an answer of type {kind!r}"]
    try:
        lines = body.decode().split("\n")
        data = [line[6:] for line in lines if line.startswith("data: ") and line != "data: [DONE]"]
        events = [json.loads(each) for each in data]
    except ValueError:
        return ["a stream that is no JSON"]
    return [] if events else ["a stream without events"]


def _of_shape(path: str, error: Any) -> list[str]:
    """Return what is wrong with the shape of an error of the surface with this path."""
    if not isinstance(error, dict) or not isinstance(error.get("error"), dict):
        return ["an error without an error object"]
    inner = error["error"]
    is_anthropics = path.startswith("/v1/models") and error.get("type") == "error"  # who sends its version asks for it
    if is_anthropics or path.startswith(("/v1/messages", "/api/anthropic")):
        is_right = error.get("type") == "error" and {"type", "message"} <= inner.keys() <= {
            "type",
            "message",
            "details",
        }
        is_right = is_right and error.get("request_id") is not None
    elif path.startswith(("/api/paas", "/api/coding")):
        is_right = inner.keys() == {"code", "message"} and str(inner["code"]).isdecimal()
    else:
        is_right = inner.keys() == {"message", "type", "param", "code"} and bool(inner["type"])
    return [] if is_right else [f"an error of another shape: {sorted(inner)}"]


def _of_headers(reply: Reply) -> list[str]:
    if reply.status in (503, 529) and "retry-after" not in reply.headers:
        return ["no retry-after"]
    return []


def _message(error: Any) -> Any:
    inner = error.get("error") if isinstance(error, dict) else None
    return inner.get("message", "") if isinstance(inner, dict) else ""
