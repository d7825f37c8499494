"""The gateway's file as it was last good. The folder of a ConfigMap is a link that is moved, so its name is looked up
anew each time."""

from pathlib import Path

from glm_gateway.config.file import BadConfig, ConfigFile, file_of

_State = tuple[int, int, int, int]


class ConfigSource:
    """fault: what is wrong with the file now, in a sentence; None: nothing. One thread at a time."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises BadConfig and OSError."""
        self._path = path
        self._seen: _State | None = _state_of(path)  # before it is read: what changes meanwhile is seen next time
        self.current: ConfigFile = file_of(path.read_bytes())
        self.fault: str | None = None

    def look(self) -> bool:
        """Read the file if it is another one; return whether it is, or its fault is, not as before."""
        before = self.current.digest, self.fault
        try:
            seen = _state_of(self._path)
            if seen == self._seen:
                return False
            self._seen = seen
            self.current, self.fault = file_of(self._path.read_bytes()), None
        except OSError as error:
            self._seen = None
            self.fault = f"the file cannot be read: {error.strerror or type(error).__name__}"
        except BadConfig as error:
            self.fault = str(error)
        return before != (self.current.digest, self.fault)


def _state_of(path: Path) -> _State:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
