"""Call a program to its end; its failure becomes one readable error."""

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from glm_cluster.errors import CommandFailed

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where root's programs are, which the PATH of a root by plain `su` lacks."""

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def run(
    *argv: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 120.0,
) -> str:
    """Return what the program wrote to standard output; raise CommandFailed with what it said when it failed."""
    command = [str(a) for a in argv]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(env),
            cwd=cwd,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandFailed(f"{command[0]}: no such program") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"`{brief(command)}` did not end within {timeout_s:.0f} s") from error
    if done.returncode:
        said = tail(done.stderr or done.stdout, 15)
        raise CommandFailed(f"`{brief(command)}` ended with {done.returncode}:\n{said}")
    return done.stdout


def log_to(log: Path, *argv: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a long program with everything it says in a file; raise CommandFailed with the file's end when it failed."""
    command = [str(a) for a in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        try:
            code = subprocess.call(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=_environment(env), cwd=cwd
            )
        except FileNotFoundError as error:
            raise CommandFailed(f"{command[0]}: no such program") from error
    if code:
        said = tail(log.read_text(errors="replace"), 20)
        raise CommandFailed(f"`{brief(command)}` ended with {code} (all of it: {log}):\n{said}")


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    given = os.environ if env is None else env
    return {**given, "PATH": with_sbin(given.get("PATH"))}


def with_sbin(path: str | None) -> str:
    """Return a PATH with the folders of root's programs at its end."""
    return ":".join((path or os.defpath, *SBIN))


def cluster_environment() -> dict[str, str]:
    """Return the environment of the cluster's own programs: nothing of the caller's but where programs are."""
    return {
        "PATH": with_sbin(os.environ.get("PATH")),
        "HOME": os.environ.get("HOME", "/root"),
        "LANG": "C.UTF-8",
    }


def brief(command: list[str]) -> str:
    """Return the command as one would type it, cut to a readable length."""
    text = shlex.join(command)
    return text if len(text) <= 200 else text[:197] + "..."


def tail(text: str, lines: int) -> str:
    return "\n".join("  " + line for line in text.rstrip().splitlines()[-lines:])
