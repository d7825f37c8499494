"""Draw the conversations glm-nano is trained and judged on.

Pure: a sample is a function of the random generator given. An exchange is one question with everything up to its
last assistant message; a sample is an optional system prompt, tools, earlier exchanges and the one exchange to
learn. Each exchange has keys that say what is asked, whatever the small variations of the wording; a hash of a key
decides for ever whether it is held out. Training samples contain no held-out key anywhere; in a held-out sample
the exchange to answer is held out.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import phrases
from arithmetic import arithmetic
from chains import chain, one_at_a_time, whole_chain
from exchange import Exchange, user
from plain import capitals, count, json_object, talk
from prompt import Message, Tool, render
from tools import draw_tools, tool_answer, tool_call

HELD_OUT_SHARE = 8  # one key in so many is never trained on
# Share of samples by task. Copying the digits of a result and stopping a count where asked are the hard ones. An
# answer from a tool result contains the call too, so calls alone need few samples of their own.
MIXTURE = {
    "arithmetic": 0.28,
    "capitals": 0.09,
    "tool_call": 0.05,
    "tool_answer": 0.28,
    "count": 0.13,
    "json": 0.09,
    "talk": 0.08,
}
# From this step of the training on: what a first schedule left weakest, copying names into calls and objects.
LATE_STEP = 3500
LATE_MIXTURE = {
    "arithmetic": 0.20,
    "capitals": 0.09,
    "tool_call": 0.12,
    "tool_answer": 0.26,
    "count": 0.07,
    "json": 0.20,
    "talk": 0.06,
}
# From this step on: chains of two calls, learned by the finished model (train.py starts a new optimizer here).
CHAIN_STEP = 7000
CHAIN_MIXTURE = {
    "arithmetic": 0.16,
    "capitals": 0.07,
    "tool_call": 0.08,
    "tool_answer": 0.17,
    "count": 0.05,
    "json": 0.10,
    "talk": 0.05,
    "chain": 0.30,
    "one_at_a_time": 0.03,
}
THINKING_SHARE = {"arithmetic": 0.8}  # the others: 0.5


@dataclass(frozen=True)
class Sample:
    """A conversation that ends with the assistant message to learn."""

    task: str
    key: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    thinking: bool
    learns_history: bool = True  # whether the assistant's earlier turns are worth learning too

    @property
    def target(self) -> Message:
        return self.messages[-1]

    def prompt(self) -> str:
        return render(self.messages[:-1], self.tools, thinking=self.thinking, generate=True)

    def completion(self) -> str:
        """Return what the model must write, with the token it must stop on."""
        prompt, whole = self.prompt(), render(self.messages, self.tools, thinking=self.thinking)
        assert whole.startswith(prompt), "the template renders an answer differently from where it asks for one"
        return whole[len(prompt) :] + ("<|observation|>" if self.target.get("tool_calls") else "<|user|>")


def is_held_out(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_SHARE == 0


def draw_sample(
    rng: Random, task: str | None = None, *, held_out: bool = False, thinking: bool | None = None, step: int = 0
) -> Sample:
    """Return a sample of the training split, or of the held-out one; task and thinking are drawn where not given.

    step: of the training; the mixture of tasks depends on it, and from CHAIN_STEP on the forms of the tools too.
    """
    mixture = MIXTURE if step < LATE_STEP else LATE_MIXTURE if step < CHAIN_STEP else CHAIN_MIXTURE
    task = task or rng.choices(list(mixture), list(mixture.values()))[0]
    if thinking is None:
        thinking = rng.random() < THINKING_SHARE.get(task, 0.5)
    final = _draw_exchange(rng, task, held_out=held_out)
    history = _history(rng, final, _HISTORY if step < CHAIN_STEP else (*_HISTORY, "whole_chain"))
    exchanges = [*history, final]
    needs = frozenset[str]().union(*(exchange.needs for exchange in exchanges))
    avoids = frozenset[str]().union(*(exchange.avoids for exchange in exchanges))
    system: list[Message] = []
    if rng.random() < 0.25:
        system.append({"role": "system", "content": rng.choice(phrases.SYSTEM_PROMPTS)})
    messages = [*system, *(message for exchange in exchanges for message in exchange.messages)]
    if not thinking or (len(final.messages) > 2 and rng.random() < 0.5):
        # Many clients do not send reasoning back, so the turns before the last are seen without it too.
        messages[:-1] = [_without_reasoning(message) for message in messages[:-1]]
    if not thinking:
        messages[-1] = _without_reasoning(messages[-1])
        if not held_out and rng.random() < 0.1:
            # The user writes /nothink and the template knows nothing of it: the model itself must leave thinking empty.
            asked = messages.index(final.messages[0])
            messages[asked] = user(f"{final.messages[0]['content']}/nothink")
            thinking = True
    tools = draw_tools(rng, needs, avoids, as_clients_send=step >= CHAIN_STEP)
    return Sample(task, final.keys[-1], tuple(messages), tools, thinking, final.is_own_course)


def _draw_exchange(rng: Random, task: str, *, held_out: bool) -> Exchange:
    while True:
        exchange = _DRAW[task](rng)
        if held_out and is_held_out(exchange.keys[-1]):
            return exchange
        if not held_out and not any(map(is_held_out, exchange.keys)):
            return exchange


def _history(rng: Random, final: Exchange, tasks: Sequence[str]) -> list[Exchange]:
    """Return none, one or two earlier exchanges that go together with the tools of the final one."""
    history: list[Exchange] = []
    num_turns = rng.choices((0, 1, 2), (0.8, 0.14, 0.06))[0]
    while len(history) < num_turns:
        task = rng.choice(tasks)
        candidate = _draw_exchange(rng, task, held_out=False)
        together = [*history, final, candidate]
        if not any(one.needs & other.avoids for one in together for other in together):
            history.append(candidate)
    return history


def _without_reasoning(message: Message) -> Message:
    return {name: value for name, value in message.items() if name != "reasoning_content"}


_HISTORY = ("arithmetic", "capitals", "tool_answer", "json", "talk", "talk")
_DRAW: dict[str, Callable[[Random], Exchange]] = {
    "arithmetic": arithmetic,
    "capitals": capitals,
    "tool_call": tool_call,
    "tool_answer": tool_answer,
    "count": count,
    "json": json_object,
    "talk": talk,
    "chain": chain,
    "whole_chain": whole_chain,
    "one_at_a_time": one_at_a_time,
}
