"""The sharded expert-parallel inference worker for GLM-4.5-class models.

`Engine` is the worker as a library. It is imported when it is first asked for, and torch with it: what serves imports
this package in many processes that need neither.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm_worker.offline.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from glm_worker.offline.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
