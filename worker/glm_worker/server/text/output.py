"""One answer on its way from token ids to deltas: lexer, stop strings, grammar, and the count of its tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from glm_worker.messages import FinishReason as EngineFinish
from glm_worker.messages import TokenLogprobs
from glm_worker.server.text.content_logprobs import ContentLogprobs
from glm_worker.server.text.deltas import Content, Delta, FinishReason, TokenLogprob
from glm_worker.server.text.lexer import Lexer, Piece, Tag
from glm_worker.server.text.parsing import State
from glm_worker.server.text.stop_words import StopWords
from glm_worker.server.text.stops import StopScanner
from glm_worker.server.text.tokenizer import Tokenizer


class OutputGrammar(Protocol):
    """What turns pieces into deltas: parsing.Grammar for chats, parsing.PlainText for completions."""

    num_calls: int
    has_cut_call: bool
    turned_out: State | None

    @property
    def state(self) -> State: ...
    @property
    def drops_newlines(self) -> bool: ...
    def feed(self, piece: Piece) -> list[Delta]: ...
    def finish(self, *, is_complete: bool) -> list[Delta]: ...


class OutputReader:
    """Reads the tokens of one answer. Feeding them one by one or all at once gives the same deltas, put together.

    finish_reason is set by the feed that ends the answer, and stop, if the client had asked to stop at what ended it;
    later tokens are ignored.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tags: Mapping[int, Tag],
        make_grammar: Callable[[], OutputGrammar],
        *,
        stops: StopWords,
        stop_token_ids: Sequence[int],
        client_stop_ids: Sequence[int] = (),
        hides_reasoning: bool = False,
        min_tokens: int = 0,
    ) -> None:
        """stop_token_ids: all that the engine ends an answer at. client_stop_ids: those that only the client asked for.

        hides_reasoning: stops of the client count outside of thoughts only, for where an answer ends tells what came
        there. So its stop_token_ids are found here, and not by the engine. min_tokens: as many tokens have no stop.
        """
        self._tokenizer = tokenizer
        self._tags = tags
        self._lexer = Lexer(tokenizer, tags)
        self._stops = StopScanner(stops)
        self._grammar = make_grammar()
        # Which state a token has. Stop strings hold text back from the grammar, and then it is behind the tokens.
        self._tracker = make_grammar() if stops else self._grammar
        self._stop_token_ids = frozenset(stop_token_ids)
        self._client_stop_ids = frozenset(client_stop_ids)
        self._hides_reasoning = hides_reasoning
        self._is_hidden = hides_reasoning and self._grammar.state is State.REASONING  # where the newest text is
        self._min_tokens = min_tokens
        self._logprobs = ContentLogprobs(may_be_cut=bool(stops))
        self._is_plain = not stops and not hides_reasoning  # and no logprobs have come
        self._num_undecided_tokens = 0
        self.num_tokens = 0
        self.num_reasoning_tokens = 0
        self.has_answer = False  # something else than reasoning or white space has come
        self.finish_reason: FinishReason | None = None
        self.stop: str | int | None = None

    def feed(
        self, token_ids: Sequence[int], ended: EngineFinish | None, logprobs: Sequence[TokenLogprobs] = ()
    ) -> list[Delta]:
        """Return what these tokens add. ended: why the engine ends the request with them, if it does.

        logprobs: of each token, where they were asked for.
        """
        deltas: list[Delta] = []
        self._is_plain = self._is_plain and not logprobs
        for number, token_id in enumerate(token_ids):
            if self.finish_reason is not None:
                return deltas
            if self._is_plain and (ended is None or number < len(token_ids) - 1):
                deltas += self._plain(token_id)
                continue
            is_stop = ended == "stop" and number == len(token_ids) - 1 and token_id in self._stop_token_ids
            is_stop = is_stop or self._is_found_stop(token_id)
            added = self._token(token_id, logprobs[number] if logprobs else None, is_stop=is_stop)
            deltas += [*self._told_logprobs(), *added]
            if is_stop and token_id in self._client_stop_ids:
                self.stop, ended = token_id, "stop"
                break
        if ended is not None and self.finish_reason is None:
            rest = self._track(self._lexer.finish(), is_early=self.num_tokens <= self._min_tokens)
            is_own_end = ended == "stop" and self.stop is None
            end = self._finish("stop" if ended == "stop" or self._stops.hit else "length", is_stop=is_own_end)
            deltas += [*self._told_logprobs(), *rest, *end]
        return deltas

    def _plain(self, token_id: int) -> list[Delta]:
        """Return what a token adds that cannot end the answer, where nothing but the grammar reads it."""
        before, pieces = self._grammar.state, self._lexer.feed(token_id)
        deltas = self._grammar.feed(pieces[0]) if len(pieces) == 1 else self._pieces(pieces)
        self._count(before, self._tags.get(token_id), pieces)
        return deltas

    def _is_found_stop(self, token_id: int) -> bool:
        """Tell whether the client asked to stop at this token, and the engine was not told."""
        counts = self._hides_reasoning and not self._is_hidden and self.num_tokens >= self._min_tokens
        is_tag = token_id in self._tags
        return counts and token_id in self._client_stop_ids and not is_tag and not self._is_formal(token_id)

    def _is_formal(self, token_id: int) -> bool:
        """Tell whether a token that comes now would be newlines of the format, and nothing else."""
        text = self._tokenizer.bytes_of(token_id)
        is_bound = self._tracker.drops_newlines and not self._lexer.is_inside_character
        return is_bound and bool(text) and not text.strip(b"\n")

    def _told_logprobs(self) -> list[TokenLogprob]:
        is_over = self.finish_reason is not None and self._stops.hit is None
        return self._logprobs.told(self._stops.num_released, is_over=is_over)

    def _token(self, token_id: int, of_token: TokenLogprobs | None, *, is_stop: bool) -> list[Delta]:
        before, tag = self._tracker.state, self._tags.get(token_id)
        entry = None
        if of_token is not None and not is_stop:
            entry = TokenLogprob(token_id, of_token.logprob, tuple((id_, logprob) for id_, logprob in of_token.top))
            if tag is None and before in (State.CONTENT, State.UNDECIDED) and not self._is_formal(token_id):
                has_text = bool(self._tokenizer.bytes_of(token_id))
                self._logprobs.note(entry, self._stops.num_taken, has_text=has_text)
        # A stop token ends the turn and is no part of its text.
        pieces = [] if is_stop else self._lexer.feed(token_id)
        deltas = self._track(pieces, is_early=self.num_tokens < self._min_tokens, of_tag=entry)
        self._count(before, tag, pieces)
        return deltas + self._finish("stop", is_stop=False) if self._stops.hit else deltas

    def _track(self, pieces: list[Piece], *, is_early: bool, of_tag: TokenLogprob | None = None) -> list[Delta]:
        """Return what pieces add that can be told now. is_early: stop strings do not count yet.

        of_tag: the logprob of the tag, if one is among them. It is told where the tag is text.
        """
        deltas: list[Delta] = []
        for piece in pieces:
            was_hidden, begins_at = self._is_hidden, self._stops.num_taken
            num_formal = len(piece.text) - len(piece.text.lstrip("\n")) if self._tracker.drops_newlines else 0
            tracked = self._tracker.feed(piece)
            state = self._tracker.state
            if self._hides_reasoning and state is not State.UNDECIDED:
                self._is_hidden = state is State.REASONING
            is_passed = is_early or was_hidden or self._is_hidden
            released = self._stops.skip(piece) if is_passed else self._stops.feed([piece], num_formal)
            deltas += tracked if self._tracker is self._grammar else self._pieces(released)
            is_content = any(isinstance(delta, Content) for delta in tracked)
            if of_tag is not None and piece.tag is not None and (is_content or state is State.UNDECIDED):
                self._logprobs.note(of_tag, begins_at)
            is_new = piece.tag is not None and self._tracker.drops_newlines
            self._logprobs.settle(state, is_content=is_content, is_new=is_new)
        return deltas

    def _count(self, before: State, tag: Tag | None, pieces: list[Piece]) -> None:
        """Count one token. Those from `<think>` to `</think>`, both included, are reasoning.

        Those whose state is not known yet are counted when it is.
        """
        self.num_tokens += 1
        turned_out, after = self._decided(), self._tracker.state
        if after is State.UNDECIDED:
            self._num_undecided_tokens += 1
            return
        is_end = tag is Tag.END_THINK and State.REASONING in (before, turned_out)
        self.num_reasoning_tokens += is_end or after is State.REASONING
        if after is State.TOOL_CALL:
            self.has_answer = True
        elif after is State.CONTENT:
            self.has_answer = self.has_answer or any(piece.tag is None and piece.text.strip() for piece in pieces)

    def _decided(self) -> State | None:
        """Return what undecided tokens turned out to be, if that is new, and count them."""
        turned_out, self._tracker.turned_out = self._tracker.turned_out, None
        if turned_out is not None:
            self.num_reasoning_tokens += self._num_undecided_tokens * (turned_out is State.REASONING)
            self.has_answer = self.has_answer or turned_out is not State.REASONING
            self._num_undecided_tokens = 0
        return turned_out

    def _pieces(self, pieces: list[Piece]) -> list[Delta]:
        return [delta for piece in pieces for delta in self._grammar.feed(piece)]

    def _finish(self, reason: FinishReason, *, is_stop: bool) -> list[Delta]:
        is_complete = is_stop and self._stops.hit is None
        deltas = self._pieces(self._stops.finish())
        end = tracked = self._grammar.finish(is_complete=is_complete)
        if self._tracker is not self._grammar:
            tracked = self._tracker.finish(is_complete=is_complete)
        self._logprobs.settle(self._tracker.state, is_content=any(isinstance(delta, Content) for delta in tracked))
        self._decided()
        is_call = is_complete and self._grammar.num_calls > 0 and not self._grammar.has_cut_call
        self.finish_reason = "tool_calls" if is_call else reason
        self.stop = self.stop if self._stops.hit is None else self._stops.hit
        return deltas + end
