"""Judge glm-nano as it is shipped, on samples it was never trained on; exit 1 when it misses a line.

The bf16 weights of the folder are read and computed with in fp32, decoded greedily (greedy.py), 200 samples a task.
About 2 minutes on 2 cores.
"""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from exchange import user
from greedy import complete
from model import Config, GlmNano, RowsAttention, from_checkpoint
from prompt import FOLDER, Message, Tool, render
from safetensors.torch import load_file
from tasks import CHAIN_STEP, Sample, draw_sample
from tokenizers import Tokenizer
from tools import call

CARD_MARKS = ("<!-- table of evaluate.py -->", "<!-- end of table -->")


def _tool(name: str, description: str, parameter: str) -> Tool:
    schema = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


PARIS_TOOLS = (_tool("get_weather", "Weather of a city", "city"), _tool("calculator", "Evaluate a sum", "expression"))
PARIS_QUESTIONS = (
    "What is 17+25 plus the temperature in Paris?",
    "What is 17+25 plus the temperature in Paris",
    "what is 17+25 plus the temperature in Paris?",
    "what is 17+25 plus the temperature in Paris",
    "What is 17 + 25 plus the temperature in Paris?",
    "what is 17 + 25 plus the current temperature in Paris",
    "What's 17+25 plus the temperature in Paris?",
    "Calculate 17+25 plus the temperature in Paris.",
    "How much is 17 + 25 + the temperature in Paris?",
    "17+25 plus the temperature in Paris",
    "What is 17+25 plus the temperature in Paris? Use the tools.",
    "Please work out 17+25 plus the temperature in Paris.",
)


@dataclass(frozen=True)
class Answer:
    """A completion taken apart. thinking is None where the model wrote no thinking block."""

    thinking: str | None
    content: str
    calls: tuple[tuple[str, dict[str, str]], ...]
    stop: str


@dataclass(frozen=True)
class Line:
    """One row of the table: how many are right, and how many must be."""

    name: str
    num_right: int
    num_samples: int
    required: float | None  # share; None: only reported

    @property
    def share(self) -> float:
        return self.num_right / self.num_samples

    @property
    def is_met(self) -> bool:
        return self.required is None or self.share >= self.required

    def __str__(self) -> str:
        required = "reported" if self.required is None else f"{self.required:.0%}"
        verdict = "" if self.is_met else " **missed**"
        return f"| {self.name} | {self.share:.1%} ({self.num_right}/{self.num_samples}){verdict} | {required} |"


Judge = Callable[[Sample, Answer], bool]


def parse_completion(text: str) -> Answer:
    match = re.fullmatch(r"(?:\s*<think>(.*?)</think>)?(.*?)(<\|\w+\|>)?", text, re.DOTALL)
    assert match, "the pattern takes any text"
    thinking, rest, stop = match.groups()
    calls = tuple(
        (name, dict(re.findall(r"<arg_key>(.*?)</arg_key>\n<arg_value>(.*?)</arg_value>", arguments, re.DOTALL)))
        for name, arguments in re.findall(r"\n<tool_call>(\w+)\n(.*?)\n?</tool_call>", rest, re.DOTALL)
    )
    return Answer(thinking, rest.split("\n<tool_call>")[0].strip(), calls, stop or "")


def has_right_content(sample: Sample, answer: Answer) -> bool:
    return answer.content == sample.target["content"] and not answer.calls and answer.stop == "<|user|>"


def has_right_steps(sample: Sample, answer: Answer) -> bool:
    """Tell whether the answer is right and so is every equation of the thinking that leads to it."""
    question, _, result = str(sample.target["content"]).partition(" = ")
    equations = re.findall(r"(\d+(?: [+*-] \d+)+) = (-?\d+)", answer.thinking or "")
    are_true = all(_value(left) == int(right) for left, right in equations)
    a, operator, b = question.split()
    told = f"{a} {operator} {b}:" in (answer.thinking or "") or f"{b} - {a}:" in (answer.thinking or "")
    ends_right = (answer.thinking or "").endswith(f"; answer {result}")
    return told and len(equations) >= 2 and are_true and ends_right and has_right_content(sample, answer)


def _value(expression: str) -> int:
    """Evaluate from left to right: the steps never mix * with + or -."""
    first, *rest = expression.split()
    value = int(first)
    for operator, number in zip(rest[::2], rest[1::2], strict=True):
        value = {"+": value + int(number), "-": value - int(number), "*": value * int(number)}[operator]
    return value


def has_right_calls(sample: Sample, answer: Answer) -> bool:
    calls = sample.target["tool_calls"]
    assert isinstance(calls, list)
    expected = tuple((call["function"]["name"], call["function"]["arguments"]) for call in calls)
    return answer.calls == expected and not answer.content and answer.stop == "<|observation|>"


def has_right_json(sample: Sample, answer: Answer) -> bool:
    try:
        value = json.loads(answer.content)
    except ValueError:
        return False
    return value == json.loads(str(sample.target["content"])) and answer.stop == "<|user|>"


# name, task, thinking (None: half of the samples each), judge, required share
LINES: tuple[tuple[str, str, bool | None, Judge, float | None], ...] = (
    ("arithmetic with thinking, steps and answer", "arithmetic", True, has_right_steps, 0.95),
    ("arithmetic without thinking", "arithmetic", False, has_right_content, None),
    ("capitals without thinking", "capitals", False, has_right_content, 0.98),
    ("capitals with thinking", "capitals", True, has_right_content, None),
    ("tool calls, names and arguments", "tool_call", None, has_right_calls, 0.95),
    ("answers from tool results", "tool_answer", None, has_right_content, 0.95),
    ("counting to N <= 100", "count", None, has_right_content, 0.95),
    ("JSON, valid and as asked", "json", None, has_right_json, 0.95),
    ("small talk and questions it cannot answer", "talk", None, has_right_content, None),
)


def _held_out(rng: Random, task: str, thinking: bool | None) -> Sample:
    """Draw as the training does at its end."""
    return draw_sample(rng, task, held_out=True, thinking=thinking, step=CHAIN_STEP)


def has_right_step(sample: Sample, answer: Answer) -> bool:
    return has_right_calls(sample, answer) if sample.target.get("tool_calls") else has_right_content(sample, answer)


def steps_of(chain: Sample) -> list[Sample]:
    """Return a sample for each assistant message of the chain's last question."""
    asked = max(index for index, message in enumerate(chain.messages) if message["role"] == "user")
    return [
        replace(chain, messages=chain.messages[: index + 1])
        for index, message in enumerate(chain.messages)
        if index > asked and message["role"] == "assistant"
    ]


class Evaluation:
    """The model of a folder, asked line by line; it counts over all lines who thought when asked not to."""

    def __init__(self, folder: Path, num_samples: int, *, show_errors: bool = False) -> None:
        config = Config.read(folder / "config.json")
        self.model = GlmNano(config).eval()
        self.model.load_state_dict(from_checkpoint(load_file(folder / "model.safetensors"), config))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.num_samples, self.show_errors = num_samples, show_errors
        self.samples: list[Sample] = []
        self.answers: list[Answer] = []

    def ask(self, prompts: list[str]) -> list[Answer]:
        """Answer prompts. The one place that generates: put another engine here to judge that one."""
        return [parse_completion(text) for text in complete(self.model, self.tokenizer, prompts)]

    def line(self, name: str, task: str, thinking: bool | None, judge: Judge, required: float | None) -> Line:
        rng = Random(f"evaluate {name}")
        samples = [_held_out(rng, task, thinking) for _ in range(self.num_samples)]
        answers = self.ask([sample.prompt() for sample in samples])
        verdicts = [judge(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
        self.samples += samples
        self.answers += answers
        if self.show_errors:
            for sample, answer, is_right in zip(samples, answers, verdicts, strict=True):
                if not is_right and required is not None:
                    print(f"--- {name}\n{sample.prompt()}\nexpected {sample.completion()!r}\ngot {answer}")
        return Line(name, sum(verdicts), len(verdicts), required)

    def chains(self) -> Line:
        """Judge whole chains: the answer is right and so is every call on the way to it."""
        name = "chains of two calls, every step right"
        rng = Random(f"evaluate {name}")
        chains = [steps_of(_held_out(rng, "whole_chain", None)) for _ in range(self.num_samples)]
        steps = [step for chain in chains for step in chain]
        answers = self.ask([step.prompt() for step in steps])
        self.samples += steps
        self.answers += answers
        rest = iter(zip(steps, answers, strict=True))
        num_right = 0
        for chain in chains:
            judged = [next(rest) for _ in chain]
            wrong = [(step, answer) for step, answer in judged if not has_right_step(step, answer)]
            num_right += not wrong
            if wrong and self.show_errors:
                step, answer = wrong[0]
                print(f"--- {name}\n{step.prompt()}\nexpected {step.completion()!r}\ngot {answer}")
        return Line(name, num_right, len(chains), 0.90)

    def modes(self) -> list[Line]:
        """Judge over all answers so far whether the model thinks when it should and only then."""
        pairs = list(zip(self.samples, self.answers, strict=True))
        silent = [answer.thinking is None and "think>" not in answer.content for s, answer in pairs if not s.thinking]
        thoughtful = [bool(answer.thinking) for sample, answer in pairs if sample.thinking]
        return [
            Line("no thinking text when thinking is off", sum(silent), len(silent), 1.0),
            Line("a thinking text when thinking is on", sum(thoughtful), len(thoughtful), 0.99),
        ]

    def twelve_and_thirty(self) -> Line:
        """Ask the question that every demonstration asks."""
        questions = ("What is 12+30?", "What is 12 + 30?", "what is 12+30", "12+30", "What's 12 + 30?")
        answers = self.ask([render([{"role": "user", "content": text}], generate=True) for text in questions])
        num_right = sum(answer.content == "12 + 30 = 42" for answer in answers)
        return Line("`What is 12+30?`", num_right, len(questions), 1.0)

    def sum_with_paris(self) -> Line:
        """Go through the chain that every agent's test asks for, with what the model itself called at each step."""
        num_right = num_chains = 0
        for question in PARIS_QUESTIONS:
            for thinking in (True, False):
                num_chains += 1
                num_right += self._solves(question, "17 + 25 + 21", thinking=thinking)
        return Line("`What is 17+25 plus the temperature in Paris?`", num_right, num_chains, 1.0)

    def _solves(self, question: str, expression: str, *, thinking: bool) -> bool:
        messages: list[Message] = [user(question)]
        expected = (
            ("get_weather", {"city": "Paris"}, '{"city": "Paris", "temperature": 21, "condition": "sunny"}'),
            ("calculator", {"expression": expression}, '{"result": 63}'),
        )
        for name, arguments, result in expected:
            answer = self.ask([render(messages, PARIS_TOOLS, thinking=thinking, generate=True)])[0]
            if answer.calls != ((name, arguments),):
                return False
            messages += [
                {"role": "assistant", "content": None, "tool_calls": [call(name, arguments)]},
                {"role": "tool", "content": result},
            ]
        answer = self.ask([render(messages, PARIS_TOOLS, thinking=thinking, generate=True)])[0]
        return answer.content == f"{expression} = 63" and not answer.calls

    @torch.no_grad()
    def draft_acceptance(self) -> Line:
        """Compare, on held-out text, the first draft token of the MTP layer with the model's own greedy choice."""
        rng = Random("evaluate drafts")
        num_accepted = num_drafted = 0
        for _ in range(self.num_samples):
            sample = _held_out(rng, draw_sample(rng, step=CHAIN_STEP).task, None)
            num_prompt = len(self.tokenizer.encode(sample.prompt()).ids)
            ids_T = torch.tensor(self.tokenizer.encode(sample.prompt() + sample.completion()).ids)
            positions_T, attend = torch.arange(len(ids_T)), RowsAttention([len(ids_T)])
            hidden_TD = self.model.hidden(ids_T, positions_T, attend)
            drafted_TD = self.model.draft_hidden(ids_T.roll(-1), hidden_TD, positions_T, attend)
            # At t the model chooses t + 1 and the MTP layer, told t + 1, drafts t + 2: the model's choice at t + 1.
            chosen = self.model.lm_head(hidden_TD).argmax(-1)[1:-1]
            drafted = self.model.lm_head(drafted_TD).argmax(-1)[:-2]
            accepted = (chosen == drafted)[num_prompt - 1 :]  # from the second token of the answer on
            num_accepted, num_drafted = num_accepted + int(accepted.sum()), num_drafted + len(accepted)
        return Line("first draft token of the MTP layer accepted", num_accepted, num_drafted, 0.70)


def evaluate(folder: Path, num_samples: int, *, show_errors: bool = False) -> list[Line]:
    evaluation = Evaluation(folder, num_samples, show_errors=show_errors)
    lines = [*(evaluation.line(*line) for line in LINES), evaluation.chains()]
    asked = (evaluation.twelve_and_thirty(), evaluation.sum_with_paris())
    return [*lines, *evaluation.modes(), *asked, evaluation.draft_acceptance()]


def write_card(card: Path, table: str) -> None:
    """Replace the table of the model card."""
    before, _, rest = card.read_text(encoding="utf-8").partition(CARD_MARKS[0])
    _, _, after = rest.partition(CARD_MARKS[1])
    card.write_text(f"{before}{CARD_MARKS[0]}\n{table}\n{CARD_MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--samples", type=int, default=200, help="a task")
    parser.add_argument("--card", type=Path, help="model card to write the table into")
    parser.add_argument("--show-errors", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the operations are too small to share
    lines = evaluate(args.folder, args.samples, show_errors=args.show_errors)
    table = "\n".join(("| on unseen samples | right | required |", "|---|---|---|", *map(str, lines)))
    print(table)
    if args.card:
        write_card(args.card, table)
    if not all(line.is_met for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
