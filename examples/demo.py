"""`make demo`: the whole path on this machine in two minutes: plan, start, chat, call a tool, scale by load, stop.

Uses what a user would: the `glm` command and the `openai` package. Exit status 0 only if every answer was right and no
process is left. It keeps its own state folder, so deployments you run with `glm local` are not touched.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx
import openai
from openai.types.chat import ChatCompletionMessageFunctionToolCall, ChatCompletionMessageParam, ChatCompletionToolParam
from rich.console import Console

from glm_operator.local.processes import members
from glm_operator.local.state import StateFolder

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "examples/nano.yaml"
SCALED_SPEC = ROOT / "examples/nano-autoscale.yaml"
GLM = Path(sys.executable).with_name("glm")
PROGRAM = GLM.relative_to(ROOT) if GLM.is_relative_to(ROOT) else GLM  # as one types it in the checkout
MODEL = "glm-nano"
MAX_TOKENS = 256
QUESTION, RIGHT = "What is 12+30?", "42"
WEATHER_QUESTION, CITY, WEATHER = "What is the weather in Paris?", "Paris", {"temperature": 21, "condition": "sunny"}
WEATHER_TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city"}},
            "required": ["city"],
        },
    },
}

NUM_CLIENTS = 8  # twice as many as a group of SCALED_SPEC answers at once
LONG_QUESTION, LONG_ANSWER = "Count from 1 to 100.", ", ".join(map(str, range(1, 101)))
TTFT_S = 0.5  # what SCALED_SPEC promises
STEADY_S = 5.0  # for so long the promise must hold again
BURST_LIMIT_S = 90.0  # of each way; on a quiet machine it takes a quarter of that

ENDINGS = (signal.SIGTERM, signal.SIGHUP)  # as Ctrl-C: whoever ends the demo does not want its processes left

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """What was not as it should be, in a sentence."""


def heading(text: str) -> None:
    console.print(f"\n[bold cyan]{text}[/]")


def glm(*arguments: str) -> None:
    """Run a `glm` command as a person would, its output on the terminal."""
    console.print(f"[dim]$ {PROGRAM} {' '.join(arguments)}[/]")
    if subprocess.run([GLM, *arguments], cwd=ROOT, check=False).returncode:
        raise DemoFailed(f"`glm {' '.join(arguments)}` failed; what it said stands above")


def urls(deployment: str) -> list[str]:
    """Return the base URL of each group that serves."""
    said = subprocess.run([GLM, "local", "status", "-o", "json"], capture_output=True, text=True, check=True).stdout
    groups = json.loads(said)
    return [str(each["url"]) for each in groups if (each["deployment"], each["state"]) == (deployment, "serving")]


@contextmanager
def served() -> Iterator[str]:
    """Yield the base URL of the running model; afterwards stop it and check that nothing is left, whatever happened."""
    try:
        glm("local", "up", "-f", str(SPEC.relative_to(ROOT)))
        yield urls("nano")[0]
    finally:
        for number in (signal.SIGINT, *ENDINGS):
            signal.signal(number, signal.SIG_IGN)  # a second one must not leave processes behind
        heading("7. Shut down")
        states = StateFolder.of_user().deployments()
        tokens = [pod.token for state in states for pod in state.pods]
        tokens += [state.controller.token for state in states if state.controller is not None]
        glm("local", "down")
        left = [pid for token in tokens for pid in members(token)]
        if left:
            raise DemoFailed(f"processes are left: {left}")
        console.print("[green]checked: no process is left[/]")


def client_of(url: str) -> openai.OpenAI:
    """Return a client that asks this machine directly: a proxy of the environment knows nothing of its loopback."""
    direct = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=120, http_client=direct)


def chat(client: openai.OpenAI) -> None:
    """Stream an answer that needs thinking, thinking and answer apart."""
    console.print(f"user:     {QUESTION}")
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=MAX_TOKENS, stream=True
    )
    thinking = answer = ""
    for chunk in stream:
        delta = chunk.choices[0].delta
        thought, said = getattr(delta, "reasoning_content", None) or "", delta.content or ""
        if thought:
            console.print("" if thinking else "thinking: ", thought, sep="", style="dim", end="", markup=False)
        if said:
            console.print("" if answer else "\nanswer:   ", said, sep="", end="", markup=False)
        thinking, answer = thinking + thought, answer + said
    console.print()
    if not thinking.strip():
        raise DemoFailed("the model did not think before it answered")
    if RIGHT not in answer:
        raise DemoFailed(f"the answer to {QUESTION!r} is {answer!r}; {RIGHT} was expected")


def use_tool(client: openai.OpenAI) -> None:
    """Let the model call a function, give it the result, and get its answer."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": WEATHER_QUESTION}]
    console.print(f"user:      {WEATHER_QUESTION}")
    first = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER_TOOL], temperature=0, max_tokens=MAX_TOKENS
    ).choices[0]
    calls = first.message.tool_calls or []
    if first.finish_reason != "tool_calls" or len(calls) != 1:
        raise DemoFailed(
            f"one tool call was expected; the model said {first.message.content!r} ({first.finish_reason})"
        )
    call = calls[0]
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    console.print(f"tool call: {call.function.name}({call.function.arguments})", markup=False)
    if (call.function.name, json.loads(call.function.arguments)) != ("get_weather", {"city": CITY}):
        raise DemoFailed(f"get_weather for {CITY} was expected")

    result = json.dumps({"city": CITY, **WEATHER})
    console.print(f"result:    {result}", markup=False)
    messages.append(
        {
            "role": "assistant",
            "content": first.message.content,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        }
    )
    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    second = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER_TOOL], temperature=0, max_tokens=MAX_TOKENS
    )
    answer = second.choices[0].message.content or ""
    console.print(f"answer:    {answer}", markup=False)
    if not all(str(fact) in answer for fact in WEATHER.values()):
        raise DemoFailed(f"the answer does not tell the tool's result {WEATHER}")


@dataclass
class Burst:
    """Clients that ask without a pause, spread over the groups that serve."""

    urls: list[str]
    first_tokens: list[tuple[float, float]] = field(default_factory=list)  # when, and after how many seconds
    failures: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def ask_all(self, number: int) -> None:
        while not self.is_over.is_set():
            try:
                with client_of(self.urls[number % len(self.urls)]) as client:
                    self.ask(client)
            except (openai.OpenAIError, httpx.HTTPError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    def ask(self, client: openai.OpenAI) -> None:
        began_s, answer, has_token = time.monotonic(), "", False
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": LONG_QUESTION}], temperature=0, stream=True
        )
        for chunk in stream:
            if not has_token:
                has_token = True
                self.first_tokens.append((time.monotonic(), time.monotonic() - began_s))
            answer += chunk.choices[0].delta.content or ""
        if LONG_ANSWER not in answer:
            self.failures.append(answer)

    def slowest_s(self, since_s: float) -> float | None:
        """Return the slowest first token since then; None before there was one."""
        return max((ttft_s for at_s, ttft_s in [*self.first_tokens] if at_s >= since_s), default=None)


def scale_by_load() -> None:
    """Let clients break a promise, until a second group keeps it; then let the second group go again."""
    glm("local", "up", "-f", str(SCALED_SPEC.relative_to(ROOT)))
    burst = Burst(urls("burst"))
    threads = [threading.Thread(target=burst.ask_all, args=(number,)) for number in range(NUM_CLIENTS)]
    console.print(f"{NUM_CLIENTS} clients ask; a group answers {NUM_CLIENTS // 2} at once; promised: TTFT {TTFT_S} s")
    for thread in threads:
        thread.start()
    try:
        watch(burst, "a second group that keeps the promise", lambda: len(burst.urls) == 2 and is_kept(burst))
    finally:
        burst.is_over.set()
        for thread in threads:
            thread.join()
    if burst.failures:
        raise DemoFailed(f"{len(burst.failures)} requests failed: {burst.failures[0]}")
    console.print(f"the burst is over: {len(burst.first_tokens)} requests, none failed")
    watch(burst, "one group again", lambda: len(urls("burst")) == 1)
    glm("local", "status")


def is_kept(burst: Burst) -> bool:
    slowest_s = burst.slowest_s(time.monotonic() - STEADY_S)
    return slowest_s is not None and slowest_s <= TTFT_S


def watch(burst: Burst, what: str, is_so: Callable[[], bool]) -> None:
    """Print how it goes, once a second, until it is so."""
    start = time.monotonic()
    said = ""
    while not is_so():
        if time.monotonic() - start > BURST_LIMIT_S:
            raise DemoFailed(f"{what}: not within {BURST_LIMIT_S:.0f} s")
        burst.urls = urls("burst") or burst.urls
        slowest_s = burst.slowest_s(time.monotonic() - STEADY_S)
        ttft = "no request" if slowest_s is None else f"TTFT {slowest_s:.1f} s"
        line = f"groups that serve: {len(burst.urls)}; {'no request' if burst.is_over.is_set() else ttft}"
        if line != said:
            console.print(f"{time.monotonic() - start:4.0f} s  {line}")
        said = line
        time.sleep(1)
    console.print(f"{time.monotonic() - start:4.0f} s  {what}")


def demo() -> None:
    heading("1. The plan: what the operator makes of examples/nano.yaml")
    console.print(SPEC.read_text().rstrip(), style="dim", markup=False)
    glm("plan", "-f", str(SPEC.relative_to(ROOT)))
    heading("2. Start it on this machine: the same plan and render, processes instead of pods")
    with served() as url, client_of(url) as client:
        heading("3. A streamed chat that thinks, through the openai package")
        chat(client)
        heading("4. A tool call and its answer")
        use_tool(client)
        heading("5. What runs")
        glm("local", "status")
        heading("6. A burst of clients: a promise, kept by a second group")
        scale_by_load()


def interrupt(number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does."""
    if number == signal.SIGHUP:
        fall_silent()
    raise KeyboardInterrupt


def fall_silent() -> None:
    """Say nothing more: with the terminal gone, every word would be an error before the processes are stopped."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def main() -> int:
    for number in ENDINGS:
        signal.signal(number, interrupt)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="glm-demo-") as folder:
        os.environ["XDG_STATE_HOME"] = folder
        try:
            demo()
        except (DemoFailed, openai.OpenAIError, json.JSONDecodeError) as error:
            console.print(f"\nThe demo failed: {error}", style="bold red", markup=False)
            return 1
        except KeyboardInterrupt:
            console.print("\ninterrupted", style="bold red")
            return 130
    console.print(f"\n[bold green]Everything worked, in {time.monotonic() - start:.0f} s.[/]")
    console.print(
        f"Next: `{PROGRAM} local up -f examples/nano.yaml`, or a real cluster with `make cluster`; README.md has both."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
