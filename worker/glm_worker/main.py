"""Command line of the worker: `serve` and what else can be done with a model, with flags for WorkerSettings' fields."""

import argparse
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.settings import WorkerSettings, read_settings
from glm_worker.supervisor.evidence.causes import EXIT_CONFIG, EXIT_ENGINE

NUM_STARTS = 3
OF_A_MODEL = ("model", "device", "dtype", "kv_cache_dtype", "threads_per_rank", "deterministic", "max_model_len")
"""Settings that say what is computed, and how."""

OF_AN_ENGINE = (
    *OF_A_MODEL, "served_model_name", "max_batch_tokens", "max_num_seqs", "block_size", "kv_cache_bytes",
    "prefix_cache", "cuda_kernels", "look_ahead", "control_tokens", "undeclared_tools", "reasoning_default",
    "reasoning_auto_threshold", "reasoning_max_tokens", "reasoning_effort_tokens",
)  # fmt: skip
"""Those that say something to an engine without a group: offline/settings.py takes no others."""

EXIT_UNREADABLE = 2  # of check, where 1 says that the checkpoint differs


def main() -> None:
    """Entry point of `glm-worker`."""
    # No handler of SIGTERM here: its default action ends us at any moment before the supervisor has its own; until then
    # there is nothing to drain. That holds for a process that is not PID 1, which the image's init sees to.
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    flags = vars(_parser().parse_args(arguments))
    command = flags.pop("command")
    if command == "check":
        return _check(flags)
    if command == "batch":
        from glm_worker.offline.batch.command import batch  # imports torch; --help needs none of it

        return batch(flags.pop("requests"), flags.pop("answers"), flags)
    output, num_starts = flags.pop("output", None), flags.pop("starts", NUM_STARTS)
    try:
        settings = read_settings(**flags)
        if command == "calibrate":
            return _calibrate(settings, output, num_starts)
    except ConfigError as error:
        print(f"glm-worker: {error}", file=sys.stderr)  # noqa: T201 - no logging before there are settings
        return EXIT_CONFIG
    from glm_worker.supervisor.supervisor import supervise  # --help and wrong settings need none of it

    return supervise(settings)


def _check(flags: dict[str, Any]) -> int:
    options = {name: flags.pop(name) for name in ("reference", "num_layers", "prompt_file", "as_json")}
    try:
        settings = read_settings(**flags)
    except ConfigError as error:
        print(f"glm-worker: {error}", file=sys.stderr)  # noqa: T201 - no logging before there are settings
        return EXIT_UNREADABLE
    from glm_worker.check.command import CheckOptions, check  # imports torch; --help needs none of it

    return check(settings, CheckOptions(**options))


def _calibrate(settings: WorkerSettings, output: Path, num_starts: int) -> int:
    from glm_worker.engine.calibration import command  # imports torch; serving must not, before it forks
    from glm_worker.supervisor.children.environment import child_environment
    from glm_worker.supervisor.supervisor import supervise

    try:
        calibration = command.calibrate(
            settings,
            functools.partial(supervise, server_target=command.CALIBRATOR),
            lambda own: child_environment(own, os.environ),
            num_starts,
        )
    except EngineFailed as error:
        print(f"glm-worker: {error}", file=sys.stderr)  # noqa: T201 - the answer of a command
        return EXIT_ENGINE
    command.write(calibration, output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="glm-worker", description="Serve a GLM-4.5-class model, sharded over ranks.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="serve one pod of a group",
        description="Serve one pod of a group. Each flag can also be given as GLM_<FLAG> in the environment.",
    )
    calibrate = commands.add_parser(
        "calibrate",
        help="measure what a group does here, for glm replay",
        description="Run a group of one pod on this machine, measure what its steps, its requests and its starts take,"
        " and write that as JSON. The flags of the group are those of serve.",
    )
    calibrate.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
    calibrate.add_argument(
        "--starts", type=_count, default=NUM_STARTS, metavar="N", help=f"cold starts to measure (default: {NUM_STARTS})"
    )
    for of_a_group in (serve, calibrate):
        _add_settings(of_a_group, WorkerSettings.model_fields)
    _add_check(commands)
    _add_batch(commands)
    return parser


def _add_batch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    batch = commands.add_parser(
        "batch",
        help="answer a file of requests, in OpenAI's batch format",
        description="Answer the requests of a file on this machine, one rank without a server. Answers are written as"
        " they come, in any order; to end it and start it again is to go on. Exit code: 0 where every request has an"
        " answer, 1 where some of these are errors, 2 where a file, a setting or the model cannot be used, 70 where the"
        " engine failed, 130 when interrupted.",
    )
    batch.add_argument("requests", type=Path, metavar="IN", help="a request a line: custom_id, method, url, body")
    batch.add_argument("answers", type=Path, metavar="OUT", help="the file that answers are added to")
    _add_settings(batch, OF_AN_ENGINE)


def _add_check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = commands.add_parser(
        "check",
        help="compare a checkpoint with transformers' own implementation",
        description="Compute prompts with a checkpoint's first layers here, and with transformers' own implementation,"
        " and compare every layer, the logits and the likeliest tokens. Exit code: 0 where they are the same within"
        " what the type allows, 1 where they differ, 2 where the checkpoint cannot be read.",
    )
    check.add_argument(
        "--layers",
        dest="num_layers",
        type=_count,
        metavar="N",
        help="first layers that are compared (default: as many as fit into memory)",
    )
    check.add_argument(
        "--prompt-file",
        type=Path,
        metavar="FILE",
        help="a prompt a line: plain text, or an object with messages or prompt (default: prompts of our own)",
    )
    check.add_argument(
        "--reference",
        metavar="FOLDER",
        help="the checkpoint that transformers reads, as one before its conversion (default: the same)",
    )
    check.add_argument("--json", dest="as_json", action="store_true", help="print one line of JSON in place of a table")
    _add_settings(check, OF_A_MODEL)


def _add_settings(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    for name in names:
        field = WorkerSettings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        default = "required" if field.is_required() else f"default: {field.default!s}"
        parser.add_argument(
            flag,
            *([f"--{name}"] if "_" in name else []),
            dest=name,
            metavar="VALUE",
            default=argparse.SUPPRESS,  # not given: the environment or the default decides
            help=f"{field.description or ''} ({default})".strip().replace("%", "%%"),
        )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


if __name__ == "__main__":
    main()
