"""What `glm keys` makes of what people type."""

import asyncio
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from glm_gateway.access.keys import Hash, Key, item_of, keyring_of
from glm_gateway.access.secrets import PREFIX, digest_of
from glm_operator.cli import app
from glm_operator.cli.console import CommandError
from glm_operator.cli.key_stores import FolderStore
from glm_operator.cli.keys import adding, moment
from glm_operator.local.state import StateFolder

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def glm(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def keys(folder: Path, *arguments: str) -> Result:
    return glm(*arguments, "--folder", str(folder))


def made(result: Result) -> str:
    """Return the secret that stands on stdout, alone."""
    assert result.exit_code == 0, result.stderr
    secret, end, rest = result.stdout.partition("\n")
    assert (secret.startswith(PREFIX), end, rest) == (True, "\n", "")
    return secret


def opened(folder: Path, secret: str, now: datetime | None = None) -> str | None:
    items = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    found = keyring_of(items).find(secret, now or datetime.now(UTC))
    return found and found[0]


def test_create_prints_the_secret_alone_and_keeps_a_hash(folder: Path) -> None:
    result = keys(folder, "create", "alice", "--group", "team", "--role", "developer", "--expires", "30d")
    secret = made(result)
    assert opened(folder, secret) == "alice"
    assert secret not in result.stderr
    assert "key alice is in folder" in result.stderr
    text = (folder / "alice").read_text()
    assert secret not in text
    assert json.loads(text)["group"] == "team"
    assert opened(folder, secret, datetime.now(UTC) + timedelta(days=31)) is None


def test_keys_of_local_mode_are_in_one_folder_for_all_that_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    secret = made(glm("create", "me", "--local"))
    folder = StateFolder.of_user().keys_folder
    assert folder == tmp_path / "glm-operator/keys"
    assert opened(folder, secret) == "me"
    rotated = made(glm("rotate", "me", "--local"))
    assert opened(folder, rotated) == "me"
    assert [key["name"] for key in json.loads(glm("list", "--local", "-o", "json").stdout)] == ["me"]
    assert glm("revoke", "me", "--local").exit_code == 0
    assert opened(folder, rotated) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--folder", "/x"), "--local is a folder of its own"),
        (("--secret", "team"), "--local is of this machine; it has neither --secret nor --namespace"),
        (("-n", "models"), "--local is of this machine"),
    ],
)
def test_one_place_is_named_at_a_time(options: tuple[str, ...], said: str) -> None:
    result = glm("create", "me", "--local", *options)
    assert result.exit_code == 1
    assert said in result.stderr


def test_nobody_else_reads_the_folder_and_no_half_file_stays(folder: Path) -> None:
    keys(folder, "create", "alice")
    keys(folder, "rotate", "alice")
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "alice"]
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in (folder, *folder.iterdir()))


def test_a_name_that_is_taken_is_refused_and_nothing_is_printed(folder: Path) -> None:
    secret = made(keys(folder, "create", "alice"))
    again = keys(folder, "create", "alice")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "there is a key alice in" in again.stderr
    assert opened(folder, secret) == "alice"


def test_rotate_keeps_the_old_secret_for_a_while(folder: Path) -> None:
    old, now = made(keys(folder, "create", "alice", "--group", "team")), datetime.now(UTC)
    new = made(keys(folder, "rotate", "alice", "--keep", "2h"))
    assert opened(folder, old) == opened(folder, new) == "alice"
    assert opened(folder, old, now + timedelta(hours=3)) is None
    assert opened(folder, new, now + timedelta(hours=3)) == "alice"
    assert json.loads((folder / "alice").read_text())["group"] == "team"


def test_rotate_can_end_the_old_secret_at_once(folder: Path) -> None:
    old = made(keys(folder, "create", "alice"))
    made(keys(folder, "rotate", "alice", "--keep", "0s"))
    assert opened(folder, old) is None


def test_revoke_takes_a_key_away_also_a_broken_one(folder: Path) -> None:
    secret = made(keys(folder, "create", "alice"))
    (folder / "broken").write_bytes(b"{")
    for name in ("alice", "broken"):
        result = keys(folder, "revoke", name)
        assert (result.exit_code, result.stdout) == (0, "")
    assert opened(folder, secret) is None
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_many_at_once_lose_nobodys_key(folder: Path) -> None:
    def add(number: int) -> None:
        key = Key(hashes=(Hash(sha256=digest_of(str(number))),))
        asyncio.run(FolderStore(folder).change(adding(f"k{number % 8}", key, "there")))

    with ThreadPoolExecutor(16) as pool:
        done = [pool.submit(add, number) for number in range(16)]
    taken = [str(each.exception()) for each in done if each.exception() is not None]
    assert len(taken) == 8, "each name was asked for twice"
    assert all("there is a key" in said for said in taken)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", *(f"k{number}" for number in range(8))]


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_key_that_is_not_there_is_named_with_those_that_are(folder: Path, command: str) -> None:
    keys(folder, "create", "alice")
    result = keys(folder, command, "bob")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no key bob in" in result.stderr
    assert "there are: alice" in result.stderr


def test_a_key_that_has_expired_is_not_rotated(folder: Path) -> None:
    folder.mkdir()
    old = Key(hashes=(Hash(sha256=digest_of("s")),), expires=NOW - timedelta(days=900))
    (folder / "alice").write_bytes(item_of(old))
    result = keys(folder, "rotate", "alice")
    assert result.exit_code == 1
    assert "key alice has expired" in result.stderr


def test_list_tells_all_but_secrets_and_hashes(folder: Path) -> None:
    secret = made(keys(folder, "create", "alice", "--group", "team"))
    made(keys(folder, "rotate", "alice"))
    (folder / "broken").write_bytes(b"{}")
    result = keys(folder, "list", "-o", "json")
    (row,) = json.loads(result.stdout)
    assert row | {"name": "alice", "group": "team", "expires": None, "state": "good"} == row
    assert datetime.fromisoformat(row["oldSecretUntil"]) > datetime.now(UTC)
    assert "key broken: hashes: field required" in result.stderr
    for found in (result, keys(folder, "list")):
        assert "alice" in found.stdout
        assert digest_of(secret) not in found.output
        assert PREFIX not in found.output


def test_an_empty_folder_has_no_keys_and_is_not_made_by_looking(folder: Path) -> None:
    result = keys(folder, "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert not folder.exists()
    assert json.loads(keys(folder, "list", "-o", "json").stdout) == []


def test_a_folder_of_other_things_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("hello")
    result = keys(folder, "create", "alice")
    assert result.exit_code == 1
    assert "none of it is a key" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", "Alice"), "key 'Alice' is no name"),
        (("create", "../alice"), "key '../alice' is no name"),
        (("create", "a", "--group", "my team"), "group 'my team' is no name"),
        (("create", "a", "--role", ""), "role '' is no name"),
        (("create", "a", "--expires", "soon"), "--expires: 'soon' is no duration"),
        (("create", "a", "--expires", "2020-01-01"), "--expires 2020-01-01 is over"),
        (("create", "a", "--expires", "2027-13-01"), "--expires 2027-13-01 is no day or time"),
        (("create", "a", "--expires", "999999999d"), "--expires 999999999d is longer than"),
        (("create", "a", "--expires", "0s"), "--expires 0s is over"),
        (("rotate", "a", "--keep", "-1h"), "--keep: '-1h' is no duration"),
        (("list", "-o", "yaml"), "--output yaml is not known"),
        (("list", "-n", "models"), "--folder is of this machine"),
        (("list", "--secret", "other"), "--folder is of this machine"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(folder: Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = keys(folder, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert sentence in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("36h", NOW + timedelta(hours=36)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_key_expires_after_a_time_or_at_a_moment(text: str, at: datetime) -> None:
    assert moment(text, NOW) == at


def test_a_moment_that_is_now_is_over() -> None:
    with pytest.raises(CommandError, match="is over"):
        moment(NOW.isoformat(), NOW)
