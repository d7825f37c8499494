"""Who is told what comes of a reply, as it comes: it measures, and changes nothing."""

from typing import Protocol

from glm_edge.frames import Close, Open, Tokens


class Watching(Protocol):
    """Told of each frame that counts. A reply that is no frames tells nothing."""

    def opened(self, opened: Open) -> None: ...
    def tokens(self, tokens: Tokens) -> None: ...
    def closed(self, close: Close) -> None: ...


class Unwatched:
    """Nobody measures."""

    def opened(self, opened: Open) -> None: ...
    def tokens(self, tokens: Tokens) -> None: ...
    def closed(self, close: Close) -> None: ...
