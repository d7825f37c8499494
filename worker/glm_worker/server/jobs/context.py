"""What a request meets: the checkpoint, what the deployment wants, and who asks."""

import secrets
import time
from dataclasses import dataclass, field, replace

from starlette.datastructures import Headers

from glm_edge.frames import Continuation
from glm_worker.errors import RequestRefused
from glm_worker.messages import Policy
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.carried import Carried
from glm_worker.server.thinking.overload import NO_OVERLOAD, Overload

_MAX_REQUEST_ID = 128
_MAX_NAME = 64  # of a role, of a tenant
_MAX_CONTEXT = 10**12
ROLE_HEADER = "x-glm-role"
TENANT_HEADER = "x-glm-tenant"
MODEL_HEADER = "x-glm-model"
"""Of the gateway: the name that the model it has chosen is served by here, whatever the client calls it."""

CONTEXT_HEADER = "x-glm-context-tokens"
"""Of the gateway: most tokens of the request, of its prompts and its answers together."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the deployment wants of chats, fixed for the life of the group."""

    control_tokens_are_text: bool = True  # in what clients send
    any_tool_name: bool = False  # whether a call of a tool that is not on offer is passed on
    prefix_block_size: int = 0  # tokens of the KV blocks that requests of a tenant share; 0: they share none


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks. Role and tenant are what a trusted proxy says; nobody else can say them.

    model, context_tokens, overload: what only the deployment's own gateway says. model None: the one that the body
    names. context_tokens: of prompts and answers together; None: as many as the model has.
    """

    request_id: str
    role: str | None = None
    tenant: str = ""
    model: str | None = None
    context_tokens: int | None = None
    overload: Overload = NO_OVERLOAD
    headers: Headers = field(default_factory=Headers)

    @classmethod
    def of(cls, headers: Headers, policy: Policy, *, is_of_gateway: bool = False) -> "Caller":
        """Return the caller behind these headers. is_of_gateway: the deployment's own gateway says who it is.

        Raises RequestRefused for a role, a tenant or a bound that cannot be kept as it is: to leave it out would make
        one caller of many, or take the bound away.
        """
        request_id = request_id_of(headers)
        if not (policy.trust_proxy_headers or is_of_gateway):
            return cls(request_id=request_id, headers=headers)
        return cls(
            request_id=request_id,
            role=_name(headers, ROLE_HEADER) or None,
            tenant=_name(headers, TENANT_HEADER),
            model=_model(headers) if is_of_gateway else None,
            context_tokens=_context_tokens(headers) if is_of_gateway else None,
            overload=Overload.of(headers.getlist) if is_of_gateway else NO_OVERLOAD,
            headers=headers,
        )


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that turns a body into an order, beside the body. arrived_s: when its head had come, on time.monotonic.

    begun: a reply that another group has begun, and what it carries. created: Unix time that the reply tells.
    """

    checkpoint: Checkpoint
    caller: Caller
    rules: Rules
    policy: Policy
    arrived_s: float = field(default_factory=time.monotonic)
    begun: Continuation | None = None
    carried: Carried = field(default_factory=Carried)
    created: int = field(default_factory=lambda: int(time.time()))

    def going_on(self, begun: Continuation | None) -> "Context":
        """Return the context of a reply that another group has begun; the same where none has.

        Raises RequestRefused for what it carries and this group cannot read.
        """
        if begun is None:
            return self
        return replace(self, begun=begun, carried=Carried.of(begun.state), created=begun.created)

    def order_id(self, new: str) -> str:
        """Return the id of the order: a new one, or that of the reply that was begun."""
        return new if self.begun is None else self.begun.id


def request_id_of(headers: Headers) -> str:
    """Return the request id that a client gave, or a new one where it gave none that can be sent back."""
    said = headers.get("x-request-id", "")
    return said if _is_visible(said, _MAX_REQUEST_ID) else secrets.token_hex(16)


def _name(headers: Headers, header: str) -> str:
    """Return who a header names; empty where it is not sent, or says nothing."""
    said = headers.getlist(header)
    if len(said) > 1:
        mistake = f"is sent {len(said)} times; allowed is once"
    elif said and said[0] and not _is_visible(said[0], _MAX_NAME):
        mistake = (
            f"has {len(said[0])} characters, or some that are no visible ASCII; allowed are 1 to {_MAX_NAME} visible"
            " ASCII characters"
        )
    else:
        return said[0] if said else ""
    raise RequestRefused(f"the header {header} {mistake}", param=header, code="invalid_value")


def _context_tokens(headers: Headers) -> int | None:
    """Return how many tokens the request may have; None: it is not said."""
    said = headers.getlist(CONTEXT_HEADER)
    if not said:
        return None
    is_number = len(said) == 1 and said[0].isascii() and said[0].isdecimal() and len(said[0]) <= len(str(_MAX_CONTEXT))
    if not is_number or not 1 <= int(said[0]) <= _MAX_CONTEXT:
        raise RequestRefused(
            f"the header {CONTEXT_HEADER} is {', '.join(said)[:64]!r}; allowed is one integer from 1 to {_MAX_CONTEXT}",
            param=CONTEXT_HEADER,
            code="invalid_value",
        )
    return int(said[0])


def _model(headers: Headers) -> str | None:
    """Return the model that the gateway names; headers carry UTF-8 where it is no ASCII."""
    return headers.get(MODEL_HEADER, "").encode("latin-1").decode("utf-8", "replace") or None


def _is_visible(text: str, most: int) -> bool:
    return 0 < len(text) <= most and all("!" <= char <= "~" for char in text)
