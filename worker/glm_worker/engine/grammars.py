"""Compiled grammars at rank 0: read in a thread beside the steps, kept for the requests that come with them again.

Reading one takes from 2 ms to 2 s of a core, and xgrammar does it without the interpreter's lock. The vocabulary is
read there too, once the rank is ready.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

from glm_worker.engine.sampling.matcher import AnswerMatcher, GrammarFailed
from glm_worker.errors import GlmWorkerError
from glm_worker.model.grammar_vocabulary import unpack_grammar
from glm_worker.request import AnswerGrammar, EngineRequest

if TYPE_CHECKING:
    import xgrammar

MAX_KEPT = 64
MAX_KEPT_BYTES = 256 * 2**20
_log = logging.getLogger("glm_worker.rank")


class GrammarUnreadable(Exception):
    """The message says why, for the client."""


class Grammars:
    """One thread reads, in the order of the calls. What is kept is there at once."""

    def __init__(self, load_vocabulary: Callable[[], "xgrammar.TokenizerInfo"]) -> None:
        """load_vocabulary may fail, and then every grammar is unreadable."""
        self._load_vocabulary = load_vocabulary
        self._vocabulary: xgrammar.TokenizerInfo | None = None
        self._kept: OrderedDict[str, tuple[xgrammar.CompiledGrammar, int]] = OrderedDict()  # least recently used first
        self._lock = Lock()  # of _kept
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="glm-grammars")

    def warm_up(self) -> None:
        """Begin to read the vocabulary."""
        self._thread.submit(self._warm_up)

    def matcher(self, request: EngineRequest) -> "Future[AnswerMatcher]":
        """Return what the answer of a request with a grammar is held against, when that has been read.

        It has taken the tokens with which the request came: thousands of them would hold up a step. The future raises
        GrammarUnreadable if the grammar cannot be read, GrammarFailed if the answer cannot be held against it.
        """
        assert request.grammar is not None
        kept = self._look_up(request.grammar.key)
        if kept is None or request.answer_token_ids:
            return self._thread.submit(self._begin, request, request.grammar)
        done: Future[AnswerMatcher] = Future()
        try:
            done.set_result(AnswerMatcher(kept, request))
        except GrammarFailed as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """Wait for what is being read, and let the thread end."""
        self._thread.shutdown(cancel_futures=True)

    def _warm_up(self) -> "xgrammar.TokenizerInfo":
        if self._vocabulary is None:
            try:
                self._vocabulary = self._load_vocabulary()
            except (GlmWorkerError, RuntimeError) as error:
                _log.error("grammars cannot be used: %s", error)
                raise GrammarUnreadable("structured output does not work here: see the log of rank 0") from error
        return self._vocabulary

    def _begin(self, request: EngineRequest, grammar: AnswerGrammar) -> AnswerMatcher:
        matcher = AnswerMatcher(self._read(grammar.key, grammar.compiled), request)
        matcher.take_all(request.answer_token_ids)
        return matcher

    def _read(self, key: str, packed: bytes) -> "xgrammar.CompiledGrammar":
        vocabulary = self._warm_up()
        if (kept := self._look_up(key)) is not None:  # read for the request before this one
            return kept
        try:
            grammar, num_bytes = unpack_grammar(packed, vocabulary)
        except ValueError as error:
            raise GrammarUnreadable(str(error)) from error
        with self._lock:
            self._kept[key] = (grammar, num_bytes)
            while len(self._kept) > 1 and (
                len(self._kept) > MAX_KEPT or sum(size for _, size in self._kept.values()) > MAX_KEPT_BYTES
            ):
                self._kept.popitem(last=False)
        return grammar

    def _look_up(self, key: str) -> "xgrammar.CompiledGrammar | None":
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]
