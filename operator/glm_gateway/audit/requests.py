"""One request as a line of the audit log: who, what, how much, how long. Never what was said. Pure."""

from typing import Any

from glm_gateway.proxy.relay.result import Result
from glm_gateway.surfaces.thinking import REPLY_HEADER
from glm_gateway.usage.entry import Entry


def request_facts(
    *,
    request_id: str,
    path: str,
    key: str | None,
    model: str | None,
    revision: str | None,
    mode: str | None,
    status: int | None,
    seconds: float,
    result: Result | None,
    entry: Entry | None,
) -> dict[str, Any]:
    """Return the facts of a request that has ended.

    key: None: nobody knows who asked. model, result: None: it got no further. revision: of the group; None: it has
    none. mode: of thinking, that the request asks for; what became of it the reply says. status: None: the client was
    gone before. entry: what was counted.
    """
    opened = None if result is None else result.progress.opened
    headers = {} if opened is None else {name.lower(): value for name, value in opened.headers}
    return {
        "request_id": request_id,
        "path": path,
        "key": key,
        "model": model,
        "group": (result.group or None) if result is not None else None,
        "revision": revision,
        "mode": mode,
        "thinking": headers.get(REPLY_HEADER),
        "status": status,
        "outcome": "refused" if result is None else str(result.outcome),
        "seconds": round(seconds, 3),
        "prompt_tokens": None if entry is None else entry.prompt,
        "cached_tokens": None if entry is None else entry.cached,
        "answer_tokens": None if entry is None else entry.answer,
        "thinking_tokens": None if entry is None else entry.thinking,
    }
