"""Groups from a file: a new one is taken, a broken one changes nothing and says what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from glm_gateway.groups.file import MAX_BYTES, FileSource, groups_in
from glm_gateway.groups.found import BadSource, Found

ONE = {"name": "nano-g0", "host": "127.64.0.1", "port": 8000}


def text(*groups: dict[str, Any]) -> bytes:
    return json.dumps({"groups": groups}).encode()


class Source:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "groups.json"
        self.taken: list[list[Found]] = []
        self.source = FileSource(self.path, self.taken.append)

    def put(self, content: bytes) -> None:
        """Write a file as it is to be written."""
        new = self.path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(self.path)
        self.source.look()


def test_a_file_names_groups() -> None:
    more = {"name": "nano-g1", "host": "127.64.1.1", "port": 8001, "management_port": 9091, "revision": "r"}
    first, second = groups_in(text(ONE, more))
    assert first == Found(name="nano-g0", host="127.64.0.1", port=8000)
    assert (second.management_port, second.revision) == (9091, "r")


def test_a_file_says_what_is_seen_of_a_group_from_outside() -> None:
    (group,) = groups_in(text({**ONE, "ready": False, "leaving": True}))
    assert (group.is_ready, group.is_leaving) == (False, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b"\xff{", "invalid"),
        (b'{"groups": [{"name": "\xff"}]}', "utf-8"),
        (text({**ONE, "prot": 1}), "prot"),
        (text({**ONE, "port": "8000"}), "int"),
        (text({**ONE, "port": 0}), "port 0"),
        (text({**ONE, "management_port": 65536}), "65536"),
        (text({**ONE, "host": ""}), "no host"),
        (text({**ONE, "name": ""}), "''"),
        (text(ONE, ONE), "'nano-g0'"),
    ],
)
def test_a_broken_file_keeps_what_was_known_and_says_what_is_wrong(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(BadSource, match=said):
        groups_in(content)
    world = Source(tmp_path)
    world.put(text(ONE))
    world.put(content)
    assert said in world.source.problem
    assert len(world.taken) == 1
    world.put(text(ONE, {**ONE, "name": "nano-g1"}))
    assert [each.name for each in world.taken[-1]] == ["nano-g0", "nano-g1"]
    assert world.source.problem == ""


def test_a_file_that_is_gone_keeps_what_was_known(tmp_path: Path) -> None:
    world = Source(tmp_path)
    world.source.look()
    assert "No such file" in world.source.problem
    world.put(text(ONE))
    world.path.unlink()
    world.source.look()
    assert len(world.taken) == 1
    world.put(text())
    assert world.taken[-1] == []


def test_the_same_groups_are_not_told_again(tmp_path: Path) -> None:
    world = Source(tmp_path)
    for _ in range(3):
        world.put(text(ONE))
    world.source.look()
    assert len(world.taken) == 1


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    world = Source(tmp_path)
    world.put(b" " * (MAX_BYTES + 1))
    assert str(MAX_BYTES) in world.source.problem
