"""Which file a gateway runs by, and what is wrong with the one that it found since."""

from dataclasses import dataclass


@dataclass
class Standing:
    """digest: sha256 of the file's bytes in use. fault: why what lies there now is not wholly in use; None: it is."""

    digest: str = ""
    fault: str | None = None
