"""What each engine is given to do, and what it says of it: read from the command line, written as a JSON line."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """Prompts of num_prompt random tokens and answers of num_answer, `batch` at once."""

    num_prompt: int
    num_answer: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.num_prompt} in, {self.num_answer} out, batch {self.batch}"


@dataclass(frozen=True)
class Speed:
    """Tokens a second of all requests together."""

    work: Work
    prefill: float
    decode: float


def of_command_line(description: str | None) -> tuple[Path, str, int, list[Work]]:
    """Return model, dtype, threads and works: those that `arguments_of` wrote."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--work", action="append", required=True, help="prompt,answer,batch")
    arguments = parser.parse_args()
    works = [Work(*map(int, work.split(","))) for work in arguments.work]
    return arguments.model, arguments.dtype, arguments.threads, works


def arguments_of(model: Path, dtype: str, threads: int, works: list[Work]) -> list[str]:
    listed = [f"--work={work.num_prompt},{work.num_answer},{work.batch}" for work in works]
    return [f"--model={model}", f"--dtype={dtype}", f"--threads={threads}", *listed]


def tell(speed: Speed, **more: object) -> None:
    print(json.dumps({**asdict(speed), **more}), flush=True)


def told(output: str) -> list[tuple[Speed, dict[str, object]]]:
    """Return what an engine told, in its order, and what it said besides."""
    speeds = []
    for line in output.splitlines():
        if line.startswith("{"):
            fields = json.loads(line)
            work, prefill, decode = Work(**fields.pop("work")), fields.pop("prefill"), fields.pop("decode")
            speeds.append((Speed(work, prefill, decode), fields))
    return speeds
