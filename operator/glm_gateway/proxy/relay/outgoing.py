"""A request as it goes to groups, and how long they may be silent about it."""

from dataclasses import dataclass

from glm_edge.frames import CONTINUED_TYPE, FRAMES_HEADER, Continuation, continued
from glm_gateway.ladder.easing import Easing
from glm_gateway.proxy.client import Added
from glm_gateway.proxy.heads import RawHeaders, request_head


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A request as it goes to groups. added: headers of ours. streams: its client reads events.

    target: the path with its query.
    """

    method: str
    target: str
    headers: RawHeaders
    body: bytes
    added: Added
    streams: bool

    def request(self, easing: Easing, continuation: Continuation | None, told: Added = ()) -> tuple[bytes, list[bytes]]:
        """Return the head and the parts of the body for a group; with a continuation it is to go on with a reply.

        told: headers of ours for this group only.
        """
        added = [*self.added, *told, *easing.for_worker, (FRAMES_HEADER.encode(), b"1")]
        parts = [self.body] if self.body else []
        if continuation is not None:
            parts = continued(continuation, self.body)
            added.append((b"content-type", CONTINUED_TYPE.encode()))
        return request_head(self.method, self.target, self.headers, sum(map(len, parts)), added), parts


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How long a group may be silent, in seconds."""

    head_s: float = 30.0  # until the head of a stream, or of frames, which comes after a second at the latest
    whole_s: float = 3600.0  # until the head of a whole reply without frames: it is written by then
    silence_s: float = 45.0  # in the middle of a reply: three signs of life that did not come
    outside_s: float = 300.0  # a server outside, which gives no signs of life while it thinks
    last_s: float = 1.0  # for the end of a reply behind its last frame
