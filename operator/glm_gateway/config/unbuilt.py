"""Fields of the file that nothing heeds yet. They are refused by name: what is accepted works.

Who builds one takes it off the list.
"""

from collections.abc import Iterator

from glm_gateway.config.config import GatewayConfig
from glm_gateway.part import Part

NOT_BUILT = frozenset(
    {
        "workers.tlsFolder",
    }
)
"""By their names in the file; those of an item in a list have no number."""


def unbuilt(config: GatewayConfig) -> list[str]:
    """Return which fields a file says that nothing heeds yet. A null says nothing."""
    return sorted(NOT_BUILT.intersection(_said(config)))


def _said(part: Part, before: str = "") -> Iterator[str]:
    """Yield the names of all fields that were said, with those in them."""
    for field in part.model_fields_set:
        value = getattr(part, field)
        name = f"{before}{type(part).model_fields[field].alias or field}"
        if value is None or value == ():
            continue
        yield name
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Part):
                yield from _said(item, f"{name}.")
