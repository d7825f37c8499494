"""Every error the operator's own modules raise on purpose about the cluster.

KubeError
├── ForeignObject   an object of a name we need belongs to somebody else; never taken over
├── LeftOver        it belongs to an earlier deployment of the same name and is about to be collected; wait
├── Rejected        the API server says our object cannot be (422, 400); only another spec helps
├── Vanishing       the namespace is being deleted: there is nothing left to do
│   └── Missing     what was to be read or written is not there (404)
└── Unavailable     anything that may work later: timeouts, throttling, a server that is down
    ├── Expired     a watch is asked to go on from a version that is too old (410); list again
    ├── Conflict    the object is not the one that was meant, or another manager owns its fields (409)
    └── Denied      a quota, an admission webhook or our permissions forbid it (403); somebody may allow it later
"""


class KubeError(Exception):
    """Root of the tree above. The message is a sentence for people."""


class ForeignObject(KubeError):
    """An object of a name we need belongs to somebody else."""


class LeftOver(KubeError):
    """An object of an earlier deployment of the same name is still there."""


class Rejected(KubeError):
    """The API server refuses an object for what it says."""


class Vanishing(KubeError):
    """What we would write into is being deleted."""


class Missing(Vanishing):
    """It is not there."""


class Unavailable(KubeError):
    """The API server did not do it this time."""


class Expired(Unavailable):
    """A watch cannot go on where it was."""


class Conflict(Unavailable):
    """It is not the object that was meant."""


class Denied(Unavailable):
    """It is forbidden, for now."""
