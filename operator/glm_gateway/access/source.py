"""Keys from a folder: a mounted Secret, or one of a person's own; read again when it changes.

A Secret is mounted as links through one link, `..data`, which is moved to a new folder at once. All items are read
through where it leads at the beginning, so a keyring is never half of before and half of after.
"""

import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from glm_gateway.access.keys import Keyring, keyring_of

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at the folder. The promise is 5 s; the kubelet's own delay comes before it."""

MAX_ITEM_BYTES = 64 * 1024
_TRIES = 3
_DATA = "..data"

_State = tuple[object, ...]


Changed = Callable[[Keyring | None, Keyring], None]


def nobody_listens(before: Keyring | None, after: Keyring) -> None:
    """A Changed that does nothing."""


class _Moved(Exception):
    """The folder was changed while it was read."""


class KeySource:
    """The keyring of a folder as it was last readable. Looks from a thread of its own between `start` and `close`.

    changed: told of each new keyring, with the one before, by that thread.
    """

    def __init__(self, folder: Path, *, look_s: float = LOOK_S, changed: Changed = nobody_listens) -> None:
        self._folder = folder
        self._changed = changed
        self._look_s = look_s
        self._keyring: Keyring | None = None
        self._state: _State | None = None  # of the folder when it was read; None: read it again
        self._trouble = ""  # why it cannot be read, while it cannot
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def keyring(self) -> Keyring | None:
        """The keys that are good now; None: the folder was never readable."""
        return self._keyring

    def start(self) -> None:
        """Read the folder, and go on looking at it. An unreadable one is no error: it may come."""
        self.look()
        self._thread = threading.Thread(target=self._look_on, name="keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the looking, and wait for its thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> bool:
        """Read the folder if it has changed; return whether there is a new keyring. One thread at a time."""
        try:
            state, items, unreadable = self._read()
        except (OSError, _Moved) as error:
            said = str(error) if isinstance(error, _Moved) else error.strerror or type(error).__name__
            if said != self._trouble:
                kept = "no key is good" if self._keyring is None else "the last keys stay good"
                logger.error("cannot read keys in %s: %s; %s", self._folder, said, kept)
            self._trouble = said
            return False
        if self._trouble:
            logger.info("keys in %s can be read again", self._folder)
            self._trouble = ""
        if state is None:
            return False
        found = keyring_of(items)
        mistakes = (*found.mistakes, *unreadable)
        before = () if self._keyring is None else self._keyring.mistakes
        for mistake in mistakes:
            if mistake not in before:
                logger.warning("keys in %s: %s", self._folder, mistake)
        is_new = self._keyring is None or (found.keys, mistakes) != (self._keyring.keys, self._keyring.mistakes)
        if is_new:
            last, self._keyring = self._keyring, Keyring(found.keys, mistakes)
            self._changed(last, self._keyring)
            logger.info("keys in %s: %d good, %d mistakes", self._folder, len(found.keys), len(mistakes))
        self._state = None if unreadable else state
        return is_new

    def _look_on(self) -> None:
        while not self._closing.wait(self._look_s):
            self.look()

    def _read(self) -> tuple[_State | None, dict[str, bytes], list[str]]:
        """Return the state of the folder, its items, and what cannot be read; no state: it is as it was."""
        for _ in range(_TRIES):
            try:
                root = self._root()
                state = (str(root), *_state_of(root))
                if state == self._state:
                    return None, {}, []
                items, unreadable = _items_in(root)
                if (str(self._root()), *_state_of(root)) == state:
                    return state, items, unreadable
            except FileNotFoundError:
                if not self._folder.is_dir():
                    raise
        raise _Moved("it changes all the time")

    def _root(self) -> Path:
        """Return where the items stand now: the folder, or where a mounted Secret's link leads."""
        try:
            return self._folder / Path(self._folder, _DATA).readlink()
        except FileNotFoundError:
            return self._folder


def _state_of(root: Path) -> list[_State]:
    found: list[_State] = []
    for path in _paths(root):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            found.append((path.name, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode))
    return found


def _items_in(root: Path) -> tuple[dict[str, bytes], list[str]]:
    items, unreadable = {}, []
    for path in _paths(root):
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                continue
            with path.open("rb") as file:
                data = file.read(MAX_ITEM_BYTES + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            unreadable.append(f"key {path.name[:64]!r} cannot be read: {error.strerror}")
            continue
        if len(data) > MAX_ITEM_BYTES:
            unreadable.append(f"key {path.name[:64]!r} has more than {MAX_ITEM_BYTES >> 10} KiB")
            continue
        items[path.name] = data
    return items, unreadable


def _paths(root: Path) -> list[Path]:
    """Return the entries that may be keys: what begins with a dot is the kubelet's, or is being written."""
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in entries if not entry.name.startswith("."))
