"""Keys are read from a folder as a Secret is mounted, again when it changes, and never half of a change."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from glm_gateway.access.keys import Hash, Key, item_of
from glm_gateway.access.secrets import digest_of
from glm_gateway.access.source import MAX_ITEM_BYTES, KeySource

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DEADLINE_S = 5.0


def item(secret: str) -> bytes:
    return item_of(Key(hashes=(Hash(sha256=digest_of(secret)),)))


class Mounted:
    """A folder as the kubelet makes it of a Secret: all items are moved at once, by one link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0

    def put(self, items: Mapping[str, bytes]) -> None:
        self._number += 1
        new = self.folder / f"..{self._number}"
        new.mkdir(parents=True)
        for name, data in items.items():
            (new / name).write_bytes(data)
        link = self.folder / "..data_tmp"
        link.symlink_to(new.name)
        old = (self.folder / "..data").resolve()
        link.rename(self.folder / "..data")
        for name in items:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data") / name)
        for path in self.folder.iterdir():
            if path.is_symlink() and not path.name.startswith(".") and path.name not in items:
                path.unlink()
        if old.name.startswith("..") and old.name != "..data":
            for path in old.iterdir():
                path.unlink()
            old.rmdir()


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path / "keys")


@pytest.fixture
def source(mounted: Mounted) -> Iterator[KeySource]:
    made = KeySource(mounted.folder, look_s=0.01)
    yield made
    made.close()


def opens(source: KeySource, secret: str) -> str | None:
    found = source.keyring.find(secret, NOW) if source.keyring is not None else None
    return found and found[0]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_keys_of_a_mounted_secret_are_good_and_follow_its_link(mounted: Mounted, source: KeySource) -> None:
    mounted.put({"a": item("sa")})
    source.start()
    assert opens(source, "sa") == "a"
    mounted.put({"a": item("new"), "b": item("sb")})
    until(lambda: opens(source, "new") == "a")
    assert (opens(source, "sa"), opens(source, "sb")) == (None, "b")
    mounted.put({"b": item("sb")})
    until(lambda: opens(source, "new") is None)


def test_a_plain_folder_is_read_again_when_a_file_changes(mounted: Mounted, source: KeySource) -> None:
    mounted.folder.mkdir()
    path = mounted.folder / "a"
    path.write_bytes(item("sa"))
    assert source.look()
    assert not source.look()
    other = mounted.folder / ".a.new"  # as a program writes that lets nobody read a half
    other.write_bytes(item("sb"))
    assert not source.look()
    other.rename(path)
    assert source.look()
    assert (opens(source, "sa"), opens(source, "sb")) == (None, "a")
    path.unlink()
    assert source.look()
    assert source.keyring is not None
    assert source.keyring.keys == {}


def test_a_keyring_is_never_half_of_before_and_half_of_after(mounted: Mounted, source: KeySource) -> None:
    """Both items change at once, again and again; they always have the same number in them."""
    number_of = {digest_of(f"{name}{number}"): number for name in "ab" for number in range(200)}
    mounted.put({"a": item("a0"), "b": item("b0")})
    source.look()
    done = threading.Event()

    def change() -> None:
        for number in range(1, 200):
            mounted.put({"a": item(f"a{number}"), "b": item(f"b{number}")})
        done.set()

    thread = threading.Thread(target=change)
    thread.start()
    num_seen = 0
    while not done.is_set():
        num_seen += source.look()
        assert source.keyring is not None
        assert len({number_of[key.hashes[0].sha256] for key in source.keyring.keys.values()}) == 1
        assert len(source.keyring.keys) == 2
    thread.join()
    source.look()
    assert opens(source, "a199") == "a"
    assert num_seen > 0


def test_the_last_keys_stay_good_while_the_folder_cannot_be_read(
    mounted: Mounted, source: KeySource, caplog: pytest.LogCaptureFixture
) -> None:
    mounted.put({"a": item("sa")})
    source.look()
    away = mounted.folder.rename(mounted.folder.with_name("away"))
    for _ in range(3):
        assert not source.look()
    assert opens(source, "sa") == "a"
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "No such file or directory; the last keys stay good" in told[0]
    away.rename(mounted.folder)
    mounted.put({"a": item("sb")})
    assert source.look()
    assert opens(source, "sb") == "a"


def test_a_folder_that_comes_later_is_read_when_it_is_there(mounted: Mounted, source: KeySource) -> None:
    source.start()
    assert source.keyring is None
    mounted.put({"a": item("sa")})
    until(lambda: opens(source, "sa") == "a")


def test_a_mistake_is_told_once_a_change_by_name_and_locks_nobody_else_out(
    mounted: Mounted, source: KeySource, caplog: pytest.LogCaptureFixture
) -> None:
    mounted.put({"a": item("sa"), "bad": b'{"hashes":[{"sha256":"glm-canary"}]}'})
    for _ in range(3):
        source.look()
    told = [record.message for record in caplog.records if "key bad" in record.message]
    assert len(told) == 1
    assert opens(source, "sa") == "a"
    mounted.put({"a": item("sb"), "bad": b'{"hashes":[{"sha256":"glm-canary"}]}'})
    source.look()
    assert len([record for record in caplog.records if "key bad" in record.message]) == 1
    assert "canary" not in caplog.text


def test_what_is_no_file_or_too_large_is_no_key(mounted: Mounted, source: KeySource) -> None:
    mounted.put({"a": item("sa"), "large": b"x" * (MAX_ITEM_BYTES + 1)})
    (mounted.folder / "..data" / "lost+found").mkdir()
    source.look()
    assert opens(source, "sa") == "a"
    assert source.keyring is not None
    assert source.keyring.mistakes == ("key 'large' has more than 64 KiB",)


def test_no_secret_and_no_hash_is_logged(mounted: Mounted, source: KeySource, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mounted.put({"a": item("glm-canary"), "b": item("glm-canary"), "c": b"glm-canary"})
    source.look()
    assert "canary" not in caplog.text
    assert digest_of("glm-canary") not in caplog.text


def test_a_change_is_good_within_five_seconds_as_shipped(mounted: Mounted) -> None:
    mounted.put({"a": item("sa")})
    source = KeySource(mounted.folder)
    source.start()
    try:
        mounted.put({"a": item("sb")})
        changed = datetime.now(UTC)
        until(lambda: opens(source, "sb") == "a")
        assert datetime.now(UTC) - changed < timedelta(seconds=5)
    finally:
        source.close()
