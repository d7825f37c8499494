"""Stop strings, found in the text of an answer while it streams.

They are looked for in all generated text, reasoning, tags and tool calls included, as vLLM does; where reasoning is
hidden, only outside of it. Newlines that the format puts around its tags are no text of the answer, so what is found in
them alone is none. The first one that is complete ends the answer before its first character; text that may still
become one is held back.
"""

from collections.abc import Sequence

from glm_worker.server.text.lexer import Piece


class StopScanner:
    """Lets pieces through up to the first stop string. How the text is cut into pieces does not change the result."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held: list[Piece] = []
        self._formal: list[tuple[int, int]] = []  # newlines of the format in what is held: first and after last
        self.hit: str | None = None
        self.num_taken = 0  # characters that came in
        self.num_released = 0  # characters that were let through

    def feed(self, pieces: list[Piece], num_formal: int = 0) -> list[Piece]:
        """Return the pieces that are certainly not part of a stop string. After a hit nothing more comes through.

        num_formal: how many characters they begin with that are newlines of the format.
        """
        begin, self.num_taken = self.num_taken, self.num_taken + _length(pieces)
        if not self._stops:
            return self._released(pieces)
        if self.hit is not None:
            return []
        self._held += pieces
        text = "".join(piece.text for piece in self._held)
        self._note_formal(begin, begin + num_formal, self.num_taken - len(text))
        found = [(at, stop) for stop in self._stops if (at := self._find(stop, text)) >= 0]
        if found:
            start, self.hit = min(found, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            released, _ = _split(self._held, start)
            self._held = []
            return self._released(released)
        released, self._held = _split(self._held, len(text) - self._num_open(text))
        return self._released(released)

    def skip(self, piece: Piece) -> list[Piece]:
        """Let a piece through in which stop strings do not count, and what was held back before it."""
        self.num_taken += len(piece.text)
        return [] if self.hit is not None else [*self.finish(), *self._released([piece])]

    def finish(self) -> list[Piece]:
        """Give out what was held back: the answer is over, so it is no stop string."""
        released, self._held = self._held, []
        return self._released(released)

    def _note_formal(self, begin: int, end: int, held_begin: int) -> None:
        self._formal = [(first, last) for first, last in self._formal if last > held_begin]
        if self._formal and self._formal[-1][1] == begin:
            self._formal[-1] = self._formal[-1][0], end
        elif begin < end:
            self._formal.append((begin, end))

    def _find(self, stop: str, text: str) -> int:
        """Return where a stop string is in the text that is held, -1 if nowhere."""
        held_begin = self.num_taken - len(text)
        at = text.find(stop)
        while at >= 0 and any(b <= held_begin + at and held_begin + at + len(stop) <= e for b, e in self._formal):
            at = text.find(stop, at + 1)
        return at

    def _released(self, pieces: list[Piece]) -> list[Piece]:
        self.num_released += _length(pieces)
        return pieces

    def _num_open(self, text: str) -> int:
        """Return the length of the longest end of text that begins a stop string."""
        longest = min(len(text), max(len(stop) for stop in self._stops) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0


def _length(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.text) for piece in pieces)


def _split(pieces: list[Piece], length: int) -> tuple[list[Piece], list[Piece]]:
    """Cut after length characters. A tag is never cut: it goes to the second half as a whole."""
    first: list[Piece] = []
    for position, piece in enumerate(pieces):
        if len(piece.text) <= length:
            first.append(piece)
            length -= len(piece.text)
        elif piece.tag is not None or length == 0:
            return first, pieces[position:]
        else:
            return [*first, Piece(piece.text[:length])], [Piece(piece.text[length:]), *pieces[position + 1 :]]
    return first, []
