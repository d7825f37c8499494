"""The heads of requests to groups and of replies to clients: what goes through, what stays, what is put in. Pure.

To a group goes only what is on the list, so no header that a worker believes can come from a client. To a client goes
all that the group says, but for what is about the connection to the group.
"""

from collections.abc import Iterable, Sequence

from glm_edge.frames import GATEWAY_HEADER

RawHeaders = Sequence[tuple[bytes, bytes]]

TOKEN_HEADER = GATEWAY_HEADER.encode()

MODEL_HEADER = b"x-glm-model"
"""The name that workers serve the routed model by; the body keeps what its client wrote."""

CONTEXT_HEADER = b"x-glm-context-tokens"
"""Most tokens of a request: of its prompts and its answers together."""

TENANT_HEADER, ROLE_HEADER = b"x-glm-tenant", b"x-glm-role"

_THROUGH = frozenset(
    (
        b"accept",
        b"anthropic-beta",
        b"anthropic-version",
        b"content-type",
        b"openai-beta",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"x-glm-auto-threshold",
        b"x-request-id",
        b"x-stainless-lang",
        b"x-stainless-package-version",
    )
)
_NOT_BACK = frozenset((b"content-length", b"date", b"server"))


def request_head(
    method: str, target: str, headers: RawHeaders, body_len: int, added: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """Return the head of a request to a group. headers: of the client, names in small letters. added: ours.

    target: a path that a route knows, with its query. What is added replaces what the client sent under its name.
    """
    own = list(added)
    replaced = {name for name, _ in own}
    kept = [(name, value) for name, value in headers if name in _THROUGH and name not in replaced]
    lines = [
        f"{method} {target} HTTP/1.1".encode("latin-1"),
        b"host: group",
        b"content-length: " + str(body_len).encode(),
        *(name + b": " + value for name, value in (*kept, *own)),
    ]
    head = b"\r\n".join((*lines, b"", b""))
    num_ends = len(lines) + 1
    if head.count(b"\r") != num_ends or head.count(b"\n") != num_ends or b"\x00" in head:
        raise ValueError("a header with a line break")
    return head


def reply_headers(headers: RawHeaders, added: Iterable[tuple[bytes, bytes]] = ()) -> list[tuple[bytes, bytes]]:
    """Return the headers of a reply to a client. added: ours, which replace what the group said under their names."""
    own = list(added)
    replaced = {name for name, _ in own}
    return [(name, value) for name, value in headers if name not in _NOT_BACK and name not in replaced] + own
