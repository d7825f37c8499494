"""The process that compiles grammars: what hangs, crashes or eats memory in it costs the request that asked for it."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
import xgrammar

from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.model.grammar_vocabulary import grammar_vocabulary, unpack_grammar
from glm_worker.server.structured.compiler import CompileLimits, Compiler
from glm_worker.server.structured.recipe import Recipe, SchemaPart
from glm_worker.supervisor.children import compilers
from integration.compile_zygote import a_zygote, compile_at, listening

NANO = Path(__file__).parents[2] / "worker" / "models" / "glm-nano"
GOOD = Recipe('start: "yes" | "no"')
LARGE = Recipe("start: @p", {"p": SchemaPart('{"enum": [' + ",".join(map(str, range(300_000))) + "]}")})
in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def compiler() -> AsyncIterator[Compiler]:
    """A process with little time and memory."""
    made = a_compiler(CompileLimits(cpu_s=3.0, wall_s=4.0, memory_bytes=24 * 2**20, num_bytes=2**20, num_waiting=3))
    yield made
    await made.close()


def a_compiler(limits: CompileLimits | None = None, folder: Path = NANO) -> Compiler:
    made = Compiler(folder, limits)
    made.path = compile_at().path
    return made


def children() -> list[psutil.Process]:
    """Return what compiles now, for any server of this test run."""
    return [each for each in psutil.Process().children(recursive=True) if is_compiler(each)]


def is_compiler(process: psutil.Process) -> bool:
    try:
        return process.name() == compilers.NAME and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def hang(compiler: Compiler) -> psutil.Process:
    """Have the process stand still."""
    await compiler.compile(GOOD)
    (child,) = children()
    child.suspend()
    return child


def is_yes_or_no(compiled: bytes) -> bool:
    grammar, _ = unpack_grammar(compiled, grammar_vocabulary(NANO))
    return xgrammar.GrammarMatcher(grammar).accept_string("yes")


@in_one_loop
async def test_what_it_compiles_another_process_reads(compiler: Compiler) -> None:
    assert is_yes_or_no(await compiler.compile(GOOD))
    assert compiler.num_starts == 1
    assert len(children()) == 1


@in_one_loop
async def test_a_grammar_that_takes_too_much_cpu_time_is_refused_and_the_next_one_compiled() -> None:
    hasty = a_compiler(CompileLimits(cpu_s=0.05, wall_s=60.0))
    with pytest.raises(RequestRefused, match=r"takes more than 0.05 s to compile; make it smaller") as refusal:
        await hasty.compile(LARGE)
    assert refusal.value.code == "schema_too_large"
    assert is_yes_or_no(await hasty.compile(GOOD))
    assert hasty.num_starts == 2
    await hasty.close()


@in_one_loop
async def test_a_process_that_stands_still_is_no_fault_of_the_request(compiler: Compiler) -> None:
    child = await hang(compiler)
    before = time.monotonic()
    assert is_yes_or_no(await compiler.compile(GOOD))
    assert time.monotonic() - before > 4.0
    assert [each.pid for each in children()] != [child.pid]
    assert len(children()) == 1


@in_one_loop
async def test_a_grammar_that_takes_too_much_memory_is_refused_and_the_next_one_compiled(compiler: Compiler) -> None:
    with pytest.raises(RequestRefused, match="make it smaller") as refusal:
        await compiler.compile(LARGE)
    assert refusal.value.code == "schema_too_large"
    assert is_yes_or_no(await compiler.compile(GOOD))


@in_one_loop
async def test_a_grammar_that_is_none_is_refused_without_what_the_library_says(compiler: Compiler) -> None:
    with pytest.raises(RequestRefused, match=r"^the format cannot be compiled to a grammar$") as refusal:
        await compiler.compile(Recipe("start: secret ("))
    assert refusal.value.code == "invalid_schema"


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - other processes tell no event
            await asyncio.sleep(0.01)


async def another_child(but: psutil.Process) -> psutil.Process:
    """Return the process that is started in place of one."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        found[:] = [child for child in children() if child != but]
        return bool(found)

    await until(is_there)
    return found[0]


async def killed_while_idle(compiler: Compiler) -> psutil.Process:
    """Return a process that was killed and reaped."""
    await compiler.compile(GOOD)
    (child,) = children()
    child.kill()
    await until(lambda: not psutil.pid_exists(child.pid))
    return child


@in_one_loop
async def test_a_process_that_is_killed_is_started_again_for_the_same_request(compiler: Compiler) -> None:
    child = await hang(compiler)
    waiting = asyncio.create_task(compiler.compile(GOOD))
    await asyncio.sleep(0)
    child.kill()
    assert is_yes_or_no(await waiting)


@in_one_loop
async def test_a_process_that_is_killed_while_idle_costs_no_request(compiler: Compiler) -> None:
    await compiler.compile(GOOD)
    (child,) = children()
    child.kill()
    assert is_yes_or_no(await compiler.compile(GOOD))


@in_one_loop
async def test_a_process_that_is_killed_while_it_starts_is_started_again(compiler: Compiler) -> None:
    child = await killed_while_idle(compiler)
    waiting = asyncio.create_task(compiler.compile(GOOD))
    (await another_child(child)).kill()
    assert is_yes_or_no(await waiting)


@in_one_loop
async def test_a_process_that_is_killed_twice_is_told_as_no_room() -> None:
    compiler = a_compiler()
    await compiler.compile(GOOD)
    child = max(children(), key=psutil.Process.create_time)
    others = set(children()) - {child}
    waiting = asyncio.create_task(compiler.compile(LARGE))  # seconds, if nobody kills
    await asyncio.sleep(0)
    child.kill()
    await until(lambda: bool(set(children()) - {child, *others}))
    (second,) = set(children()) - {child, *others}
    second.kill()
    with pytest.raises(Overloaded, match="could not be compiled now; try again") as refusal:
        await waiting
    assert refusal.value.retry_after_s == 1
    assert is_yes_or_no(await compiler.compile(GOOD))
    await compiler.close()


@in_one_loop
async def test_a_process_that_crashes_is_the_fault_of_the_request(compiler: Compiler) -> None:
    child = await hang(compiler)
    waiting = asyncio.create_task(compiler.compile(GOOD))
    await asyncio.sleep(0)
    child.send_signal(signal.SIGSEGV)
    child.resume()
    with pytest.raises(RequestRefused, match="the format cannot be compiled; make it smaller"):
        await waiting
    assert is_yes_or_no(await compiler.compile(GOOD))


@in_one_loop
async def test_no_more_formats_wait_than_may(compiler: Compiler) -> None:
    waiting = [asyncio.create_task(compiler.compile(GOOD)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="3 other formats wait to be compiled"):
        await compiler.compile(GOOD)
    assert all(map(is_yes_or_no, await asyncio.gather(*waiting)))


@in_one_loop
async def test_one_that_is_cancelled_before_its_turn_leaves_its_place(compiler: Compiler) -> None:
    begun: list[int] = []
    waiting = [
        asyncio.create_task(compiler.compile(GOOD, on_begin=lambda number=number: begun.append(number)))
        for number in range(3)
    ]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    assert is_yes_or_no(await compiler.compile(GOOD))
    await asyncio.gather(waiting[0], waiting[2])
    assert begun == [0, 2]


@in_one_loop
async def test_a_process_that_cannot_start_is_told_as_no_room(tmp_path: Path) -> None:
    compiler = a_compiler(folder=tmp_path)
    with pytest.raises(Overloaded, match="structured output is not available now"):
        await compiler.compile(GOOD)
    await compiler.close()


@in_one_loop
async def test_a_start_that_is_cancelled_leaves_nothing_to_the_next_one(compiler: Compiler) -> None:
    child = await killed_while_idle(compiler)
    waiting = asyncio.create_task(compiler.compile(LARGE))  # seconds: it cannot be done before it is cancelled
    await another_child(child)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert is_yes_or_no(await compiler.compile(GOOD))
    await until(lambda: len(children()) == 1)


@in_one_loop
async def test_closing_ends_and_reaps_the_process_and_what_it_compiles_starts_none(compiler: Compiler) -> None:
    child = await hang(compiler)
    waiting = asyncio.create_task(compiler.compile(GOOD))
    await asyncio.sleep(0)
    await compiler.close()
    assert not psutil.pid_exists(child.pid)
    with pytest.raises(Overloaded, match="the server stops"):
        await waiting
    assert not children()


@in_one_loop
async def test_before_the_supervisor_says_where_nothing_is_compiled() -> None:
    compiler = Compiler(NANO)
    with pytest.raises(Overloaded, match="structured output is not available now"):
        await compiler.compile(GOOD)
    await compiler.close()


@in_one_loop
async def test_a_process_has_nothing_of_its_zygote_but_memory() -> None:
    """No descriptor but its link, one thread, and of the imports of torch next to nothing that is its own."""
    compiler = a_compiler()
    others = {child.pid for child in children()}
    await compiler.compile(GOOD)
    (child,) = (each for each in children() if each.pid not in others)
    fds = Path(f"/proc/{child.pid}/fd")
    opened = sorted(str(fd.readlink()) for fd in fds.iterdir())  # noqa: ASYNC240 - no disk
    assert opened[:3] == ["/dev/null"] * 3
    assert [name.partition(":")[0] for name in opened[3:]] == ["socket"]
    assert child.num_threads() == 1
    assert child.nice() == psutil.Process().nice() + 5
    memory = child.memory_full_info()
    assert memory.uss < 32 * 2**20 < memory.rss / 4
    await compiler.close()


@in_one_loop
async def test_with_its_zygote_a_process_dies_and_the_next_zygote_forks_another(tmp_path: Path) -> None:
    compiler = Compiler(NANO)
    compiler.path = str(tmp_path / "compile.sock")
    with listening(compiler.path) as listener:
        with a_zygote(listener) as zygote:
            await compiler.compile(GOOD)
            (child,) = (each for each in psutil.Process(zygote.pid).children() if is_compiler(each))
            zygote.kill()
        child.wait(timeout=10)
        waiting = asyncio.create_task(compiler.compile(GOOD))
        await until(lambda: compiler.num_starts == 2)
        with a_zygote(listener):
            assert is_yes_or_no(await waiting)
            await compiler.close()


def test_the_process_dies_with_the_server_even_while_it_compiles() -> None:
    program = f"""
import asyncio
from pathlib import Path
from glm_worker.server.structured.compiler import Compiler
from glm_worker.server.structured.recipe import Recipe

async def main():
    compiler = Compiler(Path({str(NANO)!r}))
    compiler.path = {compile_at().path!r}
    await compiler.compile(Recipe({GOOD.lark!r}))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    others = {child.pid for child in children()}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        (child,) = (each for each in children() if each.pid not in others)
        child.suspend()
        server.kill()
    child.wait(timeout=10)


def test_the_server_imports_neither_torch_nor_xgrammar() -> None:
    program = (
        "import sys, glm_worker.server.structured.answers, glm_worker.server.structured.grammars,"
        " glm_worker.server.structured.compiler; sys.exit(bool({'torch', 'xgrammar', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
