"""Which tokens may not come next: what would complete a bad word, and stop tokens before min_tokens. Pure."""

from collections.abc import Sequence

from glm_worker.request import EngineRequest


class Bans:
    """The bans of one request. A bad word is completed wherever it began, in the prompt too."""

    def __init__(self, request: EngineRequest, vocab_size: int) -> None:
        self._min_tokens = request.min_tokens
        self._stop_ids = sorted({id_ for id_ in request.stop_token_ids if id_ < vocab_size})  # others never come
        self._always = sorted({word[-1] for word in request.bad_words if len(word) == 1})
        self._after: dict[int, list[tuple[list[int], int]]] = {}  # by the token before the last: what came before it
        for word in request.bad_words:
            if len(word) > 1:
                self._after.setdefault(word[-2], []).append((word[:-1], word[-1]))

    def banned(self, token_ids: Sequence[int], num_generated: int) -> list[int]:
        """Return the ids that may not follow token_ids, prompt and answer; some of them perhaps twice."""
        banned = list(self._always)
        if num_generated < self._min_tokens:
            banned += self._stop_ids
        banned += [
            last
            for begin, last in self._after.get(token_ids[-1], ())
            if list(token_ids[len(token_ids) - len(begin) :]) == begin
        ]
        return banned
