"""What a reply carries to a group that goes on with it, beside its ids: what no id tells. No I/O.

How the request was answered was decided where the reply began. Decided again it might be otherwise, for a policy or the
load has changed meanwhile: another prompt, and another answer.
"""

import msgspec

from glm_worker.errors import RequestRefused
from glm_worker.server.thinking.resolve import DecidedBy, Thinking


class Decision(msgspec.Struct, frozen=True, array_like=True):
    """A Thinking without what only the head of a reply says, which is told already."""

    enabled: bool
    by: DecidedBy
    budget_tokens: int | None
    score: float | None
    threshold: float | None
    keeps_history: bool | None


class Carried(msgspec.Struct, frozen=True, array_like=True):
    """replies: what the surface has counted. decision: of a chat."""

    replies: bytes = b""
    decision: Decision | None = None

    @classmethod
    def of(cls, packed: bytes) -> "Carried":
        """Return what is carried; nothing where the reply had no token. Raises RequestRefused for what is none."""
        if not packed:
            return cls()
        try:
            return _decoder.decode(packed)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RequestRefused(
                "the state of the reply that was begun cannot be read; this group cannot go on",
                code="cannot_continue",
                status=409,
            ) from error

    @property
    def packed(self) -> bytes:
        return _encoder.encode(self)

    @property
    def thinking(self) -> Thinking | None:
        """How the request is answered, as it was decided; None: that is still to be done."""
        return None if self.decision is None else Thinking(**msgspec.structs.asdict(self.decision))


def decision_of(thinking: Thinking | None) -> Decision | None:
    """Return what another group needs to know of a decision."""
    if thinking is None:
        return None
    return Decision(*(getattr(thinking, name) for name in Decision.__struct_fields__))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Carried)
