"""Stop strings, found in the text of an answer while it streams.

They are looked for in all generated text, reasoning, tags and tool calls included, as vLLM does; where reasoning is
hidden, only outside of it. Newlines that the format puts around its tags are no text of the answer, so what is found in
them alone is none. The first one that is complete ends the answer before its first character; text that may still
become one is held back.
"""

from collections import deque

from glm_worker.server.text.lexer import Piece
from glm_worker.server.text.stop_words import StopWords


class StopScanner:
    """Lets pieces through up to the first stop string. How the text is cut into pieces does not change the result.

    Looks at each character once, and moves each piece once.
    """

    def __init__(self, stops: StopWords) -> None:
        self._stops = stops
        self._state = 0  # of the stops, after all that came in
        self._held: deque[Piece] = deque()
        self._num_held = 0  # characters
        self._formal = (0, 0)  # the newest newlines of the format: first and after last
        self.hit: str | None = None
        self.num_taken = 0  # characters that came in
        self.num_released = 0  # characters that were let through

    def feed(self, pieces: list[Piece], num_formal: int = 0) -> list[Piece]:
        """Return the pieces that are certainly not part of a stop string. After a hit nothing more comes through.

        num_formal: how many characters they begin with that are newlines of the format.
        """
        begin = self.num_taken
        for piece in pieces:
            self.num_taken += len(piece.text)
        if not self._stops:
            self.num_released = self.num_taken
            return pieces
        if self.hit is not None:
            return []
        if num_formal:
            is_more = self._formal[1] == begin
            self._formal = (self._formal[0] if is_more else begin, begin + num_formal)
        for piece in pieces:
            self._held.append(piece)
            self._num_held += len(piece.text)
            start = self._scan(piece.text, begin)
            begin += len(piece.text)
            if start is not None:
                released = self._release(start - self.num_released)
                self._held.clear()
                self._num_held = 0
                return released
        return self._release(self._num_held - self._stops.depth[self._state])

    def skip(self, piece: Piece) -> list[Piece]:
        """Let a piece through in which stop strings do not count, and what was held back before it."""
        self.num_taken += len(piece.text)
        if self.hit is not None:
            return []
        released = [*self.finish(), piece]
        self.num_released += len(piece.text)
        return released

    def finish(self) -> list[Piece]:
        """Give out what was held back: the answer is over, so it is no stop string."""
        released = list(self._held)
        self._held.clear()
        self.num_released += self._num_held
        self._num_held = self._state = 0
        return released

    def _scan(self, text: str, begin: int) -> int | None:
        """Read on through a text. Return where the stop string begins that is complete in it, if one is.

        begin: of the text, as all places here in characters of the answer.
        """
        stops, state, at = self._stops, self._state, 0
        while at < len(text):
            if not state:
                at = stops.begin(text, at)
                if at == len(text):
                    break
            state = stops.after(state, text[at])
            at += 1
            found = stops.found[state]
            if found is not None:
                start, end = begin + at - len(found), begin + at
                if not (self._formal[0] <= start and end <= self._formal[1]):
                    self._state, self.hit = state, found
                    return start
        self._state = state
        return None

    def _release(self, length: int) -> list[Piece]:
        """Let so many characters through of what is held. A tag is never cut: it stays as a whole."""
        released: list[Piece] = []
        while self._held:
            piece = self._held[0]
            size = len(piece.text)
            if size > length:
                if piece.tag is None and length > 0:
                    released.append(Piece(piece.text[:length]))
                    self._held[0] = Piece(piece.text[length:])
                    self._let(length)
                break
            released.append(self._held.popleft())
            self._let(size)
            length -= size
        return released

    def _let(self, num_chars: int) -> None:
        self._num_held -= num_chars
        self.num_released += num_chars
