"""What every target of the Makefile can count on."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_target_finds_go_where_its_archive_puts_it() -> None:
    command = ["make", "--eval=show-path: ; @echo $$PATH", "show-path"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert done.stdout == "/usr/local/go/bin:/usr/bin:/bin\n"
