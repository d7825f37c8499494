"""One page, as it is sent."""

import json
from dataclasses import dataclass
from typing import Any

JSON, HTML = b"application/json", b"text/html; charset=utf-8"


@dataclass(frozen=True)
class Page:
    """kind: of the content. max_age_s: how long a client may keep it; None: it is not said."""

    status: int
    body: bytes
    kind: bytes = JSON
    max_age_s: int | None = None


def of_json(value: Any, status: int = 200) -> Page:
    """Return a page that is one JSON value."""
    return Page(status, json.dumps(value).encode())
