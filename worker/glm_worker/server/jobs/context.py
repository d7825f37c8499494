"""What a request meets: the checkpoint, what the deployment wants, and who asks."""

import secrets
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from glm_worker.messages import Policy
from glm_worker.server.checkpoint import Checkpoint

_MAX_REQUEST_ID = 128
_MAX_NAME = 64  # of a role, of a tenant


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the deployment wants of chats, fixed for the life of the group."""

    control_tokens_are_text: bool = True  # in what clients send
    any_tool_name: bool = False  # whether a call of a tool that is not on offer is passed on


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks. Role and tenant are what a trusted proxy says; nobody else can say them."""

    request_id: str
    role: str | None = None
    tenant: str = ""
    headers: Headers = field(default_factory=Headers)

    @classmethod
    def of(cls, headers: Headers, policy: Policy) -> "Caller":
        """Return the caller behind these headers. A request id that cannot be sent back is replaced."""
        said = headers.get("x-request-id", "")
        request_id = said if _is_visible(said, _MAX_REQUEST_ID) else secrets.token_hex(16)
        if not policy.trust_proxy_headers:
            return cls(request_id=request_id, headers=headers)
        role, tenant = headers.get("x-glm-role", ""), headers.get("x-glm-tenant", "")
        return cls(
            request_id=request_id,
            role=role if _is_visible(role, _MAX_NAME) else None,
            tenant=tenant if _is_visible(tenant, _MAX_NAME) else "",
            headers=headers,
        )


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that turns a body into an order, beside the body."""

    checkpoint: Checkpoint
    caller: Caller
    rules: Rules
    policy: Policy


def _is_visible(text: str, most: int) -> bool:
    return 0 < len(text) <= most and all("!" <= char <= "~" for char in text)
