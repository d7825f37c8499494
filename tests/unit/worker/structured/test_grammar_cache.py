"""Compiled grammars are made once, kept within bounds, and their refusals for a moment."""

import asyncio
from collections.abc import Callable

import pytest

from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.server.structured.grammars import CacheLimits, Grammars
from glm_worker.server.structured.recipe import Recipe


class FakeCompiler:
    """Compiles a recipe to its own text, when it is let to. Recipes that begin with ! are refused, with ? too many."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.turn = asyncio.Lock()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def compile(self, recipe: Recipe, *, on_begin: Callable[[], object]) -> bytes:
        async with self.turn:
            on_begin()
            return await self._compiled(recipe)

    async def _compiled(self, recipe: Recipe) -> bytes:
        self.compiled.append(recipe.lark)
        await self.go_on.wait()
        if recipe.lark.startswith("!"):
            raise RequestRefused("it is wrong", code="invalid_schema")
        if recipe.lark.startswith("?"):
            raise Overloaded("later", retry_after_s=1)
        return recipe.lark.encode()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_recipe_is_compiled_once_and_its_grammar_told_with_the_end_of_the_thought() -> None:
    compiler = FakeCompiler()
    grammars = Grammars(compiler)
    first = await grammars.compiled(Recipe("a", param="x"), close_id=7)
    second = await grammars.compiled(Recipe("a", param="y"))
    assert (first.key, first.compiled, first.close_id) == (second.key, b"a", 7)
    assert second.close_id is None
    assert compiler.compiled == ["a"]


async def test_requests_at_once_for_one_recipe_wait_for_one_compilation() -> None:
    compiler = FakeCompiler()
    compiler.go_on.clear()
    grammars = Grammars(compiler)
    waiting = [asyncio.create_task(grammars.compiled(Recipe("a"))) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # the one that began it leaves
    compiler.go_on.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert {each.compiled for each in found if not isinstance(each, BaseException)} == {b"a"}
    assert compiler.compiled == ["a"]


async def test_a_compilation_that_nobody_waits_for_never_begins_and_one_that_runs_is_kept() -> None:
    compiler = FakeCompiler()
    compiler.go_on.clear()
    grammars = Grammars(compiler)
    waiting = [asyncio.create_task(grammars.compiled(Recipe(lark))) for lark in ("a", "b", "b", "c", "d")]
    await until(lambda: compiler.compiled == ["a"])
    for left in (0, 1, 3, 4):  # of b one still waits
        waiting[left].cancel()
    await asyncio.gather(waiting[0], waiting[1], waiting[3], waiting[4], return_exceptions=True)
    again = asyncio.create_task(grammars.compiled(Recipe("d")))
    compiler.go_on.set()
    assert (await waiting[2]).compiled == b"b"
    assert (await again).compiled == b"d"
    assert (await grammars.compiled(Recipe("a"))).compiled == b"a"
    assert compiler.compiled == ["a", "b", "d"]


async def test_the_grammar_used_longest_ago_goes_first_when_there_are_too_many() -> None:
    compiler = FakeCompiler()
    grammars = Grammars(compiler, CacheLimits(num_grammars=2))
    for lark in ("a", "b", "a", "c", "a", "b"):
        await grammars.compiled(Recipe(lark))
    assert compiler.compiled == ["a", "b", "c", "b"]


async def test_what_is_kept_is_bounded_in_bytes_and_one_that_is_larger_is_not_kept() -> None:
    compiler = FakeCompiler()
    grammars = Grammars(compiler, CacheLimits(num_bytes=10))
    for lark in ("aaaa", "bbbb", "aaaa", "cccc", "bbbb", "x" * 11, "x" * 11):
        await grammars.compiled(Recipe(lark))
    assert compiler.compiled == ["aaaa", "bbbb", "cccc", "bbbb", "x" * 11, "x" * 11]


async def test_a_refusal_is_repeated_for_a_moment_with_the_name_that_each_request_has_for_it() -> None:
    compiler, clock = FakeCompiler(), Clock()
    grammars = Grammars(compiler, clock=clock)
    for param in ("one", "other"):
        with pytest.raises(RequestRefused, match="it is wrong") as refusal:
            await grammars.compiled(Recipe("!", param=param))
        assert (refusal.value.param, refusal.value.code) == (param, "invalid_schema")
    clock.now = 31.0
    with pytest.raises(RequestRefused):
        await grammars.compiled(Recipe("!"))
    assert compiler.compiled == ["!", "!"]


async def test_having_no_room_is_not_remembered() -> None:
    compiler = FakeCompiler()
    grammars = Grammars(compiler)
    for _ in range(2):
        with pytest.raises(Overloaded):
            await grammars.compiled(Recipe("?"))
    assert compiler.compiled == ["?", "?"]
