"""`make demo`: the whole path on this machine in a minute: plan, start, ask with a key, lose a rank, scale, stop.

Uses what a user would: the `glm` command and the `openai` package, which knows of one address and one key. How many
groups serve it reads where `glm local status` does, for it looks five times a second. Exit status 0 only if every
answer was right and no process is left. It keeps its own state folder, so neither deployments nor keys of yours are
touched.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import openai
from burst import Ask, Burst
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)
from rich.console import Console

from glm_operator.local.gateway.process import url
from glm_operator.local.management import Management
from glm_operator.local.processes import members
from glm_operator.local.state import DeploymentState, StateFolder
from glm_operator.local.status import group_statuses

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "examples/gateway.yaml"
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

LONG_QUESTION, LONG_ANSWER = "Count from 1 to 100.", ", ".join(map(str, range(1, 101)))
GUEST_REQUESTS = 2  # a minute, which SPEC allows to the group of the guest

RANK = "glm-rank"  # what a process that computes is called
NUM_BEFORE_KILL = 20  # numbers of the answer

NUM_PEOPLE = 8  # twice as many as a group of SCALED_SPEC answers at once
TTFT_S = 0.5  # what SCALED_SPEC promises
STEADY_S = 3.0  # for so long the promise must hold again
LOOK_S = 0.2
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


def made_key(name: str, *options: str) -> str:
    """Make a key as a person would, and return its secret, which is shown to nobody."""
    arguments = ["keys", "create", name, *options, "--local"]
    console.print(f"[dim]$ {PROGRAM} {' '.join(arguments)} > {name}.key[/]")
    done = subprocess.run([GLM, *arguments], cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise DemoFailed(f"`glm {' '.join(arguments)}` failed; what it said stands above")
    return done.stdout.strip()


def states_of(name: str) -> list[DeploymentState]:
    return [state for state in StateFolder.of_user().deployments() if state.name == name]


def address_of(deployment: str) -> str:
    """Return the base URL of a deployment: that of its gateway."""
    (state,) = states_of(deployment)
    if state.gateway is None:
        raise DemoFailed(f"{deployment} has no gateway")
    return url(state.gateway)


def num_serving(deployment: str, management: Management) -> int:
    """Return how many groups serve and are not about to go."""
    return len(
        [
            group
            for state in states_of(deployment)
            for group, pods in state.groups.items()
            if group not in state.leaving and management.is_ready(pods[0].address)
        ]
    )


@contextmanager
def served(key: str) -> Iterator[str]:
    """Yield the address of the running model; afterwards stop it and check that nothing is left, whatever happened."""
    with ThreadPoolExecutor(1) as people:
        reading: Future[str] | None = None
        try:
            glm("local", "up", "-f", str(SPEC.relative_to(ROOT)))
            yield address_of("front")
            reading = reader(people, key)
        finally:
            for number in (signal.SIGINT, *ENDINGS):
                signal.signal(number, signal.SIG_IGN)  # a second one must not leave processes behind
            heading("9. Shut down" + (", while somebody is still reading" if reading is not None else ""))
            shut_down()
    if reading is not None:
        if LONG_ANSWER not in reading.result():
            raise DemoFailed(f"the answer to {LONG_QUESTION!r} is {reading.result()!r}")
        console.print("[green]checked: who was reading got all of the answer[/]")


def shut_down() -> None:
    """Stop everything, and check that no process is left."""
    states = StateFolder.of_user().deployments()
    records = [record for state in states for record in (*state.pods, state.gateway, state.controller)]
    tokens = [record.token for record in records if record is not None]
    glm("local", "down")
    left = [pid for token in tokens for pid in members(token)]
    if left:
        raise DemoFailed(f"processes are left: {left}")
    console.print("[green]checked: no process is left[/]")


def reader(people: ThreadPoolExecutor, key: str) -> Future[str]:
    """Let somebody read a long answer, and return once it has begun."""
    client, has_begun = client_of(address_of("front"), key), threading.Event()

    def read() -> str:
        answer = ""
        with client:
            for chunk in long_answer(client):
                answer += chunk.choices[0].delta.content or ""
                has_begun.set()
        return answer

    reading = people.submit(read)
    reading.add_done_callback(lambda _: has_begun.set())
    has_begun.wait()
    return reading


def long_answer(client: openai.OpenAI) -> openai.Stream[ChatCompletionChunk]:
    """Ask for an answer of some seconds."""
    return client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": LONG_QUESTION}], temperature=0, stream=True
    )


def client_of(address: str, key: str) -> openai.OpenAI:
    """Return a client that asks this machine directly: a proxy of the environment knows nothing of its loopback."""
    direct = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=address, api_key=key, max_retries=0, timeout=120, http_client=direct)


def refused_without_key(address: str) -> None:
    """Ask with a secret that is none."""
    console.print("[dim]Without a key:[/]")
    with client_of(address, "no-key") as client:
        try:
            client.models.list()
        except openai.AuthenticationError as error:
            console.print(f"{error.status_code}: {sentence_of(error)}\n", markup=False)
        else:
            raise DemoFailed("the gateway let somebody in who has no key")


def sentence_of(error: openai.APIStatusError) -> str:
    body: Any = error.body
    return str(body["message"])


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


def survive(client: openai.OpenAI) -> None:
    """Kill a process that computes an answer while it is written: the answer goes on, word for word."""
    (rank,) = ranks_of("front")[-1:]
    console.print(f"user:   {LONG_QUESTION}")
    answer, pause_s, last_s, is_killed = "", 0.0, math.inf, False
    for chunk in long_answer(client):
        answer += chunk.choices[0].delta.content or ""
        pause_s, last_s = max(pause_s, time.monotonic() - last_s), time.monotonic()
        if not is_killed and answer.count(",") >= NUM_BEFORE_KILL:
            console.print(f"answer: {answer}")
            console.print(f"[dim]$ kill -9 {rank}[/]")
            os.kill(rank, signal.SIGKILL)
            is_killed = True
    if not is_killed or LONG_ANSWER not in answer:
        raise DemoFailed(f"the answer to {LONG_QUESTION!r} is {answer!r}")
    if rank in ranks_of("front"):
        raise DemoFailed(f"rank process {rank} was killed and is there")
    console.print(f"answer: … {answer[-40:]}", markup=False)
    console.print(f"It is right to the word. Its reader saw no error, but a pause of {pause_s:.1f} s.")


def account(client: openai.OpenAI, guest: openai.OpenAI) -> None:
    """Show what the key has used, and how a key with a limit reaches it."""
    console.print("[dim]GET /v1/usage[/]")
    usage: Any = client.get("/usage", cast_to=object)
    total = usage["total"]
    if not total["requests"] or not total["answer_tokens"]:
        raise DemoFailed(f"nothing was written down: {usage}")
    console.print(
        f"key {usage['key']}: {total['requests']} requests, {total['prompt_tokens']} tokens of prompts, "
        f"{total['answer_tokens']} of answers, of these {total['thinking_tokens']} thoughts; cost {total['cost']}\n"
    )
    for _ in range(GUEST_REQUESTS):
        answer = ask_as(guest)
        if RIGHT not in answer:
            raise DemoFailed(f"the answer to {QUESTION!r} is {answer!r}; {RIGHT} was expected")
        console.print(f"guest:  {QUESTION}\nanswer: {answer}", markup=False)
    try:
        answer = ask_as(guest)
    except openai.RateLimitError as error:
        wait_s = error.response.headers["retry-after"]
        console.print(f"guest:  {QUESTION}\n429:    {sentence_of(error)} (retry-after: {wait_s})", markup=False)
    else:
        raise DemoFailed(f"the guest may ask {GUEST_REQUESTS} times a minute, and got another answer: {answer!r}")


def ask_as(client: openai.OpenAI) -> str:
    """Ask by the other name that SPEC gives the model."""
    reply = client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=MAX_TOKENS
    )
    return reply.choices[0].message.content or ""


def ranks_of(name: str) -> list[int]:
    """Return the processes that compute for a deployment, by their names, in the order of their ranks."""
    pids = [process.pid for state in states_of(name) for pod in state.pods for process in members(pod.token)]
    comms = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
    return sorted((pid for pid, comm in comms.items() if comm.startswith(RANK)), key=comms.__getitem__)


def asked(client: openai.OpenAI) -> Ask:
    """Return how the burst asks: a streamed question, whose answer must be right."""

    def ask(has_begun: Callable[[], None]) -> None:
        answer, is_first = "", True
        for chunk in long_answer(client):
            delta = chunk.choices[0].delta
            if is_first and (delta.content or getattr(delta, "reasoning_content", None)):
                is_first = False
                has_begun()
            answer += delta.content or ""
        if LONG_ANSWER not in answer:
            raise DemoFailed(f"the answer to {LONG_QUESTION!r} is {answer!r}")

    return ask


@dataclass
class Times:
    """When what happened, in seconds since the burst began. inf: not yet."""

    broken_s: float = math.inf  # somebody had waited longer than promised
    ordered_s: float = math.inf  # a second group was there, not serving yet
    served_s: float = math.inf  # it served
    kept_s: float = math.inf  # from here on nobody waited longer than promised


def scale_by_load(key: str) -> None:
    """Let more people ask than one group takes, until a second one keeps the promise; then let it go again."""
    begun_s = time.monotonic()
    glm("local", "up", "-f", str(SCALED_SPEC.relative_to(ROOT)))
    with client_of(address_of("burst"), key) as client, Management() as management:
        burst = Burst(asked(client), NUM_PEOPLE)
        console.print(
            f"{NUM_PEOPLE} people ask one question after another; a group answers {NUM_PEOPLE // 2} at once. "
            f"Promised: the first word within {TTFT_S} s"
        )
        times = kept(burst, management)
        over_s = time.monotonic()
        console.print(f"the burst is over: {len(burst.questions)} questions, all answered right")
        while len(group_statuses(states_of("burst"))) > 1:
            if time.monotonic() - over_s > BURST_LIMIT_S:
                raise DemoFailed(f"the second group was not gone {BURST_LIMIT_S:.0f} s after the burst")
            time.sleep(LOOK_S)
    end_s = time.monotonic()
    glm("local", "status")
    console.print(
        f"The promise was broken after {times.broken_s:.1f} s, a second group ordered after {times.ordered_s:.1f} s.\n"
        f"It served after {times.served_s:.1f} s. From {times.kept_s:.1f} s on nobody waited longer than promised.\n"
        f"One group was left {end_s - over_s:.0f} s after the burst. No request failed. "
        f"All this took {end_s - begun_s:.0f} s."
    )


def kept(burst: Burst, management: Management) -> Times:
    """Let the burst go on until two groups keep the promise for everybody, and print how it goes."""
    times, begun_s, said_s = Times(), time.monotonic(), -math.inf
    with burst.going():
        while not burst.failures:
            time.sleep(LOOK_S)
            serving, now_s = num_serving("burst", management), time.monotonic()
            late_until_s = burst.late_until_s(TTFT_S, now_s)
            if late_until_s > -math.inf:
                times.broken_s = min(times.broken_s, now_s - begun_s)
            if len(states_of("burst")[0].groups) > 1:
                times.ordered_s = min(times.ordered_s, now_s - begun_s)
            if serving > 1:
                times.served_s = min(times.served_s, now_s - begun_s)
            times.kept_s = max(late_until_s - begun_s, times.broken_s, times.served_s)  # inf while one is missing
            if now_s - said_s >= 1.0:
                said_s = now_s
                longest_s = burst.longest_wait_s(now_s, now_s - 1.0)
                how = f"groups that serve: {serving}; longest wait for a first word: {longest_s:.1f} s"
                console.print(f"{now_s - begun_s:4.0f} s  {how}")
            if now_s - begun_s - times.kept_s >= STEADY_S:
                break
            if now_s - begun_s > BURST_LIMIT_S:
                raise DemoFailed(f"two groups did not keep the promise within {BURST_LIMIT_S:.0f} s")
    if burst.failures:
        raise DemoFailed(f"{len(burst.failures)} questions failed: {burst.failures[0]}")
    return times


def demo() -> None:
    heading("1. The plan: what the operator makes of examples/gateway.yaml")
    console.print(SPEC.read_text().rstrip(), style="dim", markup=False)
    glm("plan", "-f", str(SPEC.relative_to(ROOT)))
    heading("2. Two keys: who has one is let in; the guest may ask twice a minute")
    key, guest_key = made_key("me"), made_key("guest", "--group", "trial")
    heading("3. Start it on this machine: the same plan and render, processes instead of pods, one address before them")
    with served(key) as address, client_of(address, key) as client, client_of(address, guest_key) as guest:
        refused_without_key(address)
        heading("4. A streamed chat that thinks, through the openai package")
        chat(client)
        heading("5. A tool call and its answer")
        use_tool(client)
        heading("6. kill -9 of a rank in the middle of an answer")
        survive(client)
        heading("7. What was used, and a limit")
        account(client, guest)
        heading("8. A burst of questions: a promise, kept by a second group")
        scale_by_load(key)


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
