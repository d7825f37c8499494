"""Command line of the worker: `glm-worker serve`, with a flag for each field of WorkerSettings."""

import argparse
import sys

from glm_worker.errors import ConfigError
from glm_worker.settings import WorkerSettings, read_settings
from glm_worker.supervisor.causes import EXIT_CONFIG


def main() -> None:
    """Entry point of `glm-worker`."""
    # No handler of SIGTERM here: its default action ends us at any moment before the supervisor has its own; until then
    # there is nothing to drain. That holds for a process that is not PID 1, which the image's init sees to.
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    flags = vars(_parser().parse_args(arguments))
    del flags["command"]
    try:
        settings = read_settings(**flags)
    except ConfigError as error:
        print(f"glm-worker: {error}", file=sys.stderr)  # noqa: T201 - no logging before there are settings
        return EXIT_CONFIG
    from glm_worker.supervisor.supervisor import supervise  # --help and wrong settings need none of it

    return supervise(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="glm-worker", description="Serve a GLM-4.5-class model, sharded over ranks.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="serve one pod of a group",
        description="Serve one pod of a group. Each flag can also be given as GLM_<FLAG> in the environment.",
    )
    for name, field in WorkerSettings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        default = "required" if field.is_required() else f"default: {field.default!s}"
        serve.add_argument(
            flag,
            *([f"--{name}"] if "_" in name else []),
            dest=name,
            metavar="VALUE",
            default=argparse.SUPPRESS,  # not given: the environment or the default decides
            help=f"{field.description or ''} ({default})".strip().replace("%", "%%"),
        )
    return parser


if __name__ == "__main__":
    main()
