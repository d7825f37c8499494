"""Where `glm keys` keeps keys: a Secret of a cluster, or a folder of this machine. Both change whole, or not at all."""

import asyncio
import base64
import binascii
import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from glm_operator.cli.console import CommandError
from glm_operator.errors import Conflict, KubeError, Missing

Items = Mapping[str, bytes]
Change = Callable[[Items], Mapping[str, bytes | None]]
"""From the items as they are to those that become others; None: one that goes. May raise CommandError. Called again
when somebody else was faster."""

AGAIN_S = 2.0
"""After this gateways' pods are told once more. A kubelet hears of the pod and of the Secret by two watches: where it
hears of the pod first, as on a busy node, it looks at the Secret that it has, and then not for a minute."""

_TRIES = 10
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class KeyStore(Protocol):
    """Items by name. str() names the store to people."""

    async def items(self) -> dict[str, bytes]:
        """Return all items; none where the store does not exist."""

    async def change(self, change: Change) -> None:
        """Change items, in the order of all who do so at once."""


class SecretStore:
    """A Secret, under the account of the kubeconfig's current user. kube: a UserKube."""

    def __init__(self, kube: Any, namespace: str, name: str) -> None:
        for what, given in (("secret", name), ("namespace", namespace)):
            if _DNS_NAME.fullmatch(given) is None:
                raise CommandError(f"--{what} {given!r} is no name: small letters, digits, '-' and '.'")
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._has_changed = False

    def __str__(self) -> str:
        return f"Secret {self._namespace}/{self._name}"

    async def items(self) -> dict[str, bytes]:
        return self._items_in(await self._kube.secret(self._namespace, self._name))

    async def change(self, change: Change) -> None:
        for _ in range(_TRIES):
            body = await self._kube.secret(self._namespace, self._name)
            data = {
                name: None if item is None else _encoded(item) for name, item in change(self._items_in(body)).items()
            }
            try:
                if body is None:
                    await self._kube.create_secret(self._namespace, self._name, data)
                else:
                    await self._kube.change_secret(body, data)
            except (Conflict, Missing) as error:
                if isinstance(error, Missing) and body is None:
                    raise  # there is no such namespace
                continue
            self._has_changed = True
            return
        raise CommandError(f"{self} was changed by others {_TRIES} times in a row; try again")

    async def tell_gateways(self) -> str:
        """Have gateways look at what was changed here; return what people should know of it, if anything.

        It takes a while: a new secret must have been shown before, or whoever breaks it off has lost it.
        """
        if not self._has_changed:
            return ""
        try:
            told = await self._kube.tell_gateways(self._namespace, self._name, datetime.now(UTC))
            if told:
                await asyncio.sleep(AGAIN_S)
                await self._kube.tell_gateways(self._namespace, self._name, datetime.now(UTC))
        except KubeError as error:
            return f"gateways see it within about a minute; they could not be told to look now: {error}"
        return f"told to look now: {', '.join(told)}" if told else "no gateway reads this Secret yet"

    def _items_in(self, body: Mapping[str, Any] | None) -> dict[str, bytes]:
        if body is None:
            return {}
        if body.get("type", "Opaque") != "Opaque":
            raise CommandError(f"{self} is of type {body['type']}; keys need a Secret of their own")
        try:
            return {name: base64.b64decode(item, validate=True) for name, item in (body.get("data") or {}).items()}
        except binascii.Error:
            raise CommandError(f"{self} has an item that is not base64") from None


class FolderStore:
    """A folder: a file a key, for this user alone. Readers never see half of one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return f"folder {self._folder}"

    async def items(self) -> dict[str, bytes]:
        with self._plain_errors():
            return self._read() if self._folder.exists() else {}

    async def change(self, change: Change) -> None:
        with self._plain_errors():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                for name, item in change(self._read()).items():
                    if item is None:
                        (self._folder / name).unlink()
                    else:
                        self._write(name, item)
                self._sync()

    def _read(self) -> dict[str, bytes]:
        paths = (path for path in self._folder.iterdir() if not path.name.startswith("."))
        return {path.name: path.read_bytes() for path in sorted(paths) if path.is_file()}

    def _write(self, name: str, item: bytes) -> None:
        descriptor, path = tempfile.mkstemp(prefix=f".{name}.", dir=self._folder)  # made with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(item)
                file.flush()
                os.fsync(file.fileno())
            Path(path).rename(self._folder / name)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CommandError(f"{self}: {error.strerror}") from error


def _encoded(item: bytes) -> str:
    return base64.b64encode(item).decode()
