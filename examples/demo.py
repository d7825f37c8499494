"""`make demo`: the whole path on this machine in a minute: plan, start, chat, call a tool, status, stop.

Uses what a user would: the `glm` command and the `openai` package. Exit status 0 only if every answer was right and no
process is left. It keeps its own state folder, so deployments you run with `glm local` are not touched.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import openai
from openai.types.chat import ChatCompletionMessageFunctionToolCall, ChatCompletionMessageParam, ChatCompletionToolParam
from rich.console import Console

from glm_operator.local.processes import members
from glm_operator.local.state import StateFolder

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "examples/nano.yaml"
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


def base_url() -> str:
    said = subprocess.run([GLM, "local", "status", "-o", "json"], capture_output=True, text=True, check=True).stdout
    return str(json.loads(said)[0]["url"])


@contextmanager
def served() -> Iterator[str]:
    """Yield the base URL of the running model; afterwards stop it and check that nothing is left, whatever happened."""
    try:
        glm("local", "up", "-f", str(SPEC.relative_to(ROOT)))
        yield base_url()
    finally:
        for number in (signal.SIGINT, *ENDINGS):
            signal.signal(number, signal.SIG_IGN)  # a second one must not leave processes behind
        heading("6. Shut down")
        tokens = [pod.token for state in StateFolder.of_user().deployments() for pod in state.pods]
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
