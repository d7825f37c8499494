"""The compile process: recipes in, compiled grammars out. The zygote forks it (supervisor/children/compilers.py).

The only module of the server that uses xgrammar, and torch with it; the zygote has imported both. It compiles what
strangers sent, so the kernel keeps its limits, and it has nothing to lose: it may be killed at any moment.
"""

import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from glm_worker.control import encode_frame, frame_length
from glm_worker.server.structured.messages import Begin, CannotStart, Compile, Compiled, NotCompiled, Ready, ToProcess
from glm_worker.server.structured.recipe import EbnfPart, Part, Recipe, SchemaPart

if TYPE_CHECKING:
    import xgrammar

_NICENESS = 5  # the ranks that decode have the first claim on the cores
_NO_MEMORY = NotCompiled("the format takes too much memory to compile; make it smaller", is_too_large=True)


def compile_for(link: socket.socket) -> int:
    """Serve one link until it closes; return the exit code. For a process of its own: its limits and streams change."""
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core has what clients sent in it
    begin = _receive(link)
    if not isinstance(begin, Begin):
        return 1
    try:
        compiler = _compiler(Path(begin.folder))
    except Exception as error:  # noqa: BLE001 - whatever stops it is told; the process ends
        link.sendall(encode_frame(CannotStart(f"{type(error).__name__}: {error}")))
        return 1
    _limit_memory(begin.memory_bytes)
    _silence()
    link.sendall(encode_frame(Ready()))
    while isinstance(request := _receive(link), Compile):
        with _cpu_limit(begin.cpu_s):
            answer = _answer(compiler, request.recipe, begin.num_bytes)
        link.sendall(encode_frame(answer))
    return 0


def _compiler(folder: Path) -> "xgrammar.GrammarCompiler":
    from glm_worker.model.grammar_vocabulary import grammar_vocabulary, load_xgrammar

    load_xgrammar()
    import xgrammar

    return xgrammar.GrammarCompiler(grammar_vocabulary(folder), max_threads=1, cache_enabled=False)


def _answer(compiler: "xgrammar.GrammarCompiler", recipe: Recipe, num_bytes: int) -> Compiled | NotCompiled:
    """Compile one recipe. The library's own errors stay here: they quote what the client sent."""
    try:
        return _packed(compile_recipe(compiler, recipe), num_bytes)
    except MemoryError:
        return _NO_MEMORY
    except (RuntimeError, ValueError) as error:
        if "bad_alloc" in str(error):
            return _NO_MEMORY
        return NotCompiled("the format cannot be compiled to a grammar", is_too_large=False)


def _packed(compiled: "xgrammar.CompiledGrammar", num_bytes: int) -> Compiled | NotCompiled:
    from glm_worker.model.grammar_vocabulary import pack_grammar

    try:
        return Compiled(pack_grammar(compiled, num_bytes))
    except ValueError:
        return NotCompiled(f"the format compiles to more than {num_bytes} bytes; make it smaller", is_too_large=True)


def compile_recipe(compiler: "xgrammar.GrammarCompiler", recipe: Recipe) -> "xgrammar.CompiledGrammar":
    """Return the grammar of a recipe, without any limit. Raises what xgrammar does."""
    grammars: dict[str, xgrammar.Grammar | str] = {name: _grammar(part) for name, part in recipe.parts.items()}
    return compiler.compile_lark(recipe.lark, named_grammars=grammars)


def _grammar(part: Part) -> "xgrammar.Grammar":
    import xgrammar

    match part:
        case SchemaPart(text=text):
            return xgrammar.Grammar.from_json_schema(text, any_whitespace=False, strict_mode=True)
        case EbnfPart(text=text):
            return xgrammar.Grammar.from_ebnf(text)


def _receive(link: socket.socket) -> ToProcess | None:
    """Return the server's next word, None when it is gone."""
    header = _read(link, 4)
    body = _read(link, frame_length(header)) if header else b""
    return msgspec.msgpack.decode(body, type=ToProcess) if body else None


def _read(link: socket.socket, num_bytes: int) -> bytes:
    """Return so many bytes; none when the link closes before."""
    parts = []
    while num_bytes:
        part = link.recv(num_bytes)
        if not part:
            return b""
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


@contextmanager
def _cpu_limit(cpu_s: float) -> Iterator[None]:
    """Have the kernel end this process with SIGPROF when it has used so much CPU time more."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory(num_bytes: int) -> None:
    """Allow so much private memory beyond what the process has now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            used = int(line.split()[1]) * 1024
            resource.setrlimit(resource.RLIMIT_DATA, (used + num_bytes, used + num_bytes))


def _silence() -> None:
    """Send what the library prints to nowhere, for its warnings quote what clients sent; and crash at once.

    The library has handlers of its own for crashes, that print and may go on.
    """
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.close(nowhere)
