"""What a rung of the ladder does to one request: headers for its worker, and one for its client. Pure."""

from dataclasses import dataclass

from glm_gateway.ladder.ladder import HEADER, Rung

MAX_THINKING_HEADER, AUTO_THINKING_HEADER = b"x-glm-max-thinking", b"x-glm-auto-thinking"
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Easing:
    """rung: on which the request was sent. max_thinking_tokens: from the first rung on."""

    rung: Rung
    max_thinking_tokens: int

    @property
    def for_worker(self) -> Headers:
        """What a group is told of this request: all of its tries the same, or a continuation would be another text."""
        if self.rung < Rung.SHORT_THOUGHTS:
            return ()
        short = (MAX_THINKING_HEADER, str(self.max_thinking_tokens).encode())
        return (short,) if self.rung < Rung.NO_THOUGHTS else (short, (AUTO_THINKING_HEADER, b"off"))

    @property
    def for_client(self) -> Headers:
        return () if self.rung is Rung.NONE else ((HEADER.encode(), self.rung.word.encode()),)


NO_EASING = Easing(Rung.NONE, 0)
