"""Grammars compiled in this process: whoever wrote the format is whom a costly one costs."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from glm_worker.errors import RequestRefused
from glm_worker.model.grammar_vocabulary import grammar_vocabulary, load_xgrammar, pack_grammar
from glm_worker.server.structured.process import compile_recipe
from glm_worker.server.structured.recipe import Recipe

if TYPE_CHECKING:
    import xgrammar


class LocalCompiler:
    """One grammar at a time, in a thread of its own. A server has them compiled in a limited process instead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "compiles-grammars")

    async def compile(self, recipe: Recipe, *, on_begin: Callable[[], object] = lambda: None) -> bytes:
        """Return the packed grammar. on_begin: its turn has come. Raises RequestRefused."""

        def compiled() -> bytes:
            on_begin()
            try:
                return pack_grammar(compile_recipe(self._compiler, recipe))
            except (RuntimeError, ValueError) as error:  # the library's own sentence quotes what was sent
                raise RequestRefused("the format cannot be compiled to a grammar", code="invalid_schema") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, compiled)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _compiler(self) -> "xgrammar.GrammarCompiler":
        load_xgrammar()
        import xgrammar

        return xgrammar.GrammarCompiler(grammar_vocabulary(self._folder), max_threads=1, cache_enabled=False)
