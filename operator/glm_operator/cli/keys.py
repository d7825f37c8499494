"""`glm keys`: make, list, revoke and rotate the API keys of a gateway. Only hashes of secrets are kept anywhere."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from glm_gateway.access.keys import NAME, Key, item_of, keyring_of, new_key, rotated
from glm_gateway.access.secrets import new_secret
from glm_operator import names
from glm_operator.api.duration import to_seconds
from glm_operator.cli.console import CommandError, err, out, plain_errors
from glm_operator.cli.key_stores import Change, FolderStore, Items, KeyStore, SecretStore
from glm_operator.local.state import StateFolder

app = typer.Typer(help="Make, list, revoke and rotate the API keys of a gateway.", no_args_is_help=True)

KEEP = "24h"

Name = Annotated[str, typer.Argument(help="Name of the key: small letters, digits, '-' and '.'.")]
SecretName = Annotated[str | None, typer.Option("--secret", help=f"Name of the Secret; default: {names.KEYS_SECRET}.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: that of the kubeconfig's context.")]
Folder = Annotated[
    Path | None, typer.Option(help="A folder of this machine in place of a Secret: a file a key, for you alone.")
]
Local = Annotated[bool, typer.Option("--local", help="The folder of what `glm local` runs: one for all of it.")]


@dataclass(frozen=True)
class Place:
    """Where keys are kept, as it was typed."""

    secret: str | None
    namespace: str | None
    folder: Path | None
    is_local: bool

    def chosen_folder(self) -> Path | None:
        """Return the folder; None: it is a Secret. Raises CommandError where several places are named."""
        if self.is_local and self.folder is not None:
            raise CommandError("--local is a folder of its own; name either it or --folder")
        if not self.is_local and self.folder is None:
            return None
        if self.secret is not None or self.namespace is not None:
            option = "--local" if self.is_local else "--folder"
            raise CommandError(f"{option} is of this machine; it has neither --secret nor --namespace")
        return StateFolder.of_user().keys_folder if self.is_local else self.folder


@app.command()
def create(
    name: Name,
    group: Annotated[str | None, typer.Option(help="Group of keys that share limits.")] = None,
    role: Annotated[str | None, typer.Option(help="Role that workers are told.")] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="When the key ends: a time from now, as in 30d, or a day in UTC, as in 2027-01-31."),
    ] = None,
    secret: SecretName = None,
    namespace: Namespace = None,
    folder: Folder = None,
    local: Local = False,
) -> None:
    """Make a key and print its secret, once: nothing keeps it. A name that is taken is refused."""

    async def make(store: KeyStore) -> None:
        now, made = datetime.now(UTC), new_secret()
        for what, given in (("key", name), ("group", group), ("role", role)):
            check_name(what, given)
        key = new_key(made, now, group=group, role=role, expires=None if expires is None else moment(expires, now))
        await store.change(adding(name, key, str(store)))
        err.print(f"key {name} is in {store}; its secret is printed this once", markup=False)
        out.print(made, markup=False)

    _run(make, Place(secret, namespace, folder, is_local=local))


@app.command("list")
def list_keys(
    secret: SecretName = None,
    namespace: Namespace = None,
    folder: Folder = None,
    local: Local = False,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """List the keys, without anything of their secrets."""

    async def show(store: KeyStore) -> None:
        if output not in ("table", "json"):
            raise CommandError(f"--output {output} is not known; use table or json")
        found = keyring_of(await store.items())
        keys, now = sorted(found.keys.items()), datetime.now(UTC)
        for mistake in found.mistakes:
            err.print(f"warning: {store}: {mistake}", markup=False)
        if output == "json":
            out.print_json(json.dumps([row_of(name, key, now) for name, key in keys]))
            return
        if not keys:
            err.print(f"there are no keys in {store}", markup=False)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("Key", "Group", "Role", "Created", "Expires", "Old secret until", "State"):
            table.add_column(column)
        for name, key in keys:
            row = row_of(name, key, now)
            times = (row[which] for which in ("created", "expires", "oldSecretUntil"))
            shown_times = ("" if time is None else shown(datetime.fromisoformat(time)) for time in times)
            table.add_row(name, key.group or "", key.role or "", *shown_times, row["state"] or "")
        out.print(table)

    _run(show, Place(secret, namespace, folder, is_local=local))


@app.command()
def revoke(
    name: Name, secret: SecretName = None, namespace: Namespace = None, folder: Folder = None, local: Local = False
) -> None:
    """Take a key away: gateways refuse its secrets within seconds of seeing the change."""

    async def take(store: KeyStore) -> None:
        await store.change(removing(name, str(store)))
        err.print(f"key {name} is gone from {store}", markup=False)

    _run(take, Place(secret, namespace, folder, is_local=local))


@app.command()
def rotate(
    name: Name,
    keep: Annotated[str, typer.Option(help="How long the old secret stays good, as in 24h; 0s: not at all.")] = KEEP,
    secret: SecretName = None,
    namespace: Namespace = None,
    folder: Folder = None,
    local: Local = False,
) -> None:
    """Give a key a new secret and print it, once. The old one stays good for a while; an older one is over."""

    async def turn(store: KeyStore) -> None:
        now, made = datetime.now(UTC), new_secret()
        until = later(now, keep, "--keep")
        await store.change(rotating(name, made, now, until, str(store)))
        err.print(f"key {name} in {store} has a new secret; the old one is good until {shown(until)}", markup=False)
        out.print(made, markup=False)

    _run(turn, Place(secret, namespace, folder, is_local=local))


def adding(name: str, key: Key, where: str) -> Change:
    """Return the change that adds a key. Pure."""

    def change(items: Items) -> dict[str, bytes | None]:
        if name in items:
            raise CommandError(f"there is a key {name} in {where} already; `glm keys rotate` gives it a new secret")
        if items and not keyring_of(items).keys:
            raise CommandError(f"{where} holds something, and none of it is a key; keys need one of their own")
        return {name: item_of(key)}

    return change


def removing(name: str, where: str) -> Change:
    """Return the change that takes an item away, also one that is no key. Pure."""

    def change(items: Items) -> dict[str, bytes | None]:
        _check_known(name, items, where)
        return {name: None}

    return change


def rotating(name: str, secret: str, now: datetime, until: datetime, where: str) -> Change:
    """Return the change that gives a key another secret. Pure."""

    def change(items: Items) -> dict[str, bytes | None]:
        _check_known(name, items, where)
        found = keyring_of({name: items[name]})
        if found.mistakes:
            raise CommandError(f"{where}: {found.mistakes[0]}; revoke it and create it anew")
        key = found.keys[name]
        if key.is_expired(now):
            raise CommandError(f"key {name} has expired, and a new secret would, too; revoke it and create it anew")
        return {name: item_of(rotated(key, secret, until))}

    return change


def row_of(name: str, key: Key, now: datetime) -> dict[str, str | None]:
    """Return what programs are told of a key: times as in RFC 3339. Pure."""
    turning = [hash_.not_after for hash_ in key.hashes if hash_.not_after is not None and now < hash_.not_after]
    return {
        "name": name,
        "group": key.group,
        "role": key.role,
        "created": _stamp(key.created),
        "expires": _stamp(key.expires),
        "oldSecretUntil": _stamp(turning[0]) if turning else None,
        "state": "expired" if key.is_expired(now) else "good",
    }


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that --expires names. Pure."""
    if text[:4].isdecimal() and text[4:5] == "-":
        try:
            named = datetime.fromisoformat(text)
        except ValueError:
            raise CommandError(f"--expires {text} is no day or time; write it as in 2027-01-31") from None
        found = named if named.tzinfo is not None else named.replace(tzinfo=UTC)
    else:
        found = later(now, text, "--expires")
    if found <= now:
        raise CommandError(f"--expires {text} is over; name a time to come")
    return found.astimezone(UTC)


def later(now: datetime, duration: str, option: str) -> datetime:
    """Return the moment a duration from now. Pure."""
    try:
        return now + timedelta(seconds=to_seconds(duration))
    except ValueError as error:
        raise CommandError(f"{option}: {error}") from None
    except OverflowError:
        raise CommandError(f"{option} {duration} is longer than there are years") from None


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")


def shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def check_name(what: str, name: str | None) -> None:
    """Raise CommandError for what is no name of a key, a group or a role. Pure."""
    if name is not None and NAME.fullmatch(name) is None:
        raise CommandError(
            f"{what} {name!r} is no name: at most 63 small letters, digits, '-' and '.',"
            " with a letter or a digit at both ends"
        )


def _check_known(name: str, items: Items, where: str) -> None:
    if name not in items:
        raise CommandError(f"there is no key {name} in {where}; there are: {', '.join(sorted(items)) or 'none'}")


def _run(command: Callable[[KeyStore], Awaitable[None]], place: Place) -> None:
    """Run a command on a folder, or as the kubeconfig's current user on a Secret."""

    async def run() -> None:
        if (folder := place.chosen_folder()) is not None:
            await command(FolderStore(folder))
            return
        from glm_operator.cluster.user import as_user  # the client costs seconds to import and is no part of a folder

        async with as_user() as (kube, default):
            store = SecretStore(kube, place.namespace or default, place.secret or names.KEYS_SECRET)
            await command(store)
            if note := await store.tell_gateways():
                err.print(note, markup=False)

    with plain_errors():
        asyncio.run(run())
