"""Pictures of docs/ are there, are shown somewhere, and are small."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
MAX_BYTES = 100_000


def shown() -> set[Path]:
    found = set()
    for page in DOCS.rglob("*.md"):
        found |= {(page.parent / path).resolve() for path in re.findall(r"!\[[^\]]*\]\(([^)#:]+)\)", page.read_text())}
    return found


def test_every_picture_that_a_page_shows_is_there() -> None:
    assert [str(path) for path in sorted(shown()) if not path.is_file()] == []


def test_every_picture_of_scaling_is_shown_and_small() -> None:
    pictures = set(DOCS.glob("images/scaling-*"))
    assert pictures
    assert pictures <= shown()
    assert [path.name for path in sorted(pictures) if path.stat().st_size > MAX_BYTES] == []
