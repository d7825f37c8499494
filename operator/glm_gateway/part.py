"""What every part of the gateway's file is: of names in camelCase, of no field that nobody knows, never changed."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """A part of the file, as the operator renders it. Names in Python's own style are taken as well."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)
