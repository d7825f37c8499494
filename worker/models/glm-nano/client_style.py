"""What client libraries make of a function before they send it as a tool: the model must see through all of it."""

from dataclasses import dataclass
from random import Random
from typing import cast

import phrases
from prompt import Tool


@dataclass(frozen=True)
class ClientStyle:
    """One library's way, the same for every tool of a request."""

    titles: bool  # of the schema and of each property
    title_of_schema: str
    dialect: str | None  # the value of "$schema"
    closed: bool  # additionalProperties: false
    strict: bool
    by_name: bool  # the keys of the schema in alphabetical order
    docstring: bool  # the description tells the arguments too
    own_words: dict[str, str]  # a description that belongs to no other request

    @classmethod
    def draw(cls, rng: Random) -> "ClientStyle":
        return cls(
            titles=rng.random() < 0.5,
            title_of_schema=rng.choice(("{name}", "{title}", "{name}_arguments", "{title}Arguments")),
            dialect=rng.choice(phrases.SCHEMA_DIALECTS) if rng.random() < 0.25 else None,
            closed=rng.random() < 0.5,
            strict=rng.random() < 0.3,
            by_name=rng.random() < 0.4,
            docstring=rng.random() < 0.25,
            own_words={name: rng.choice(ways) for name, ways in phrases.CLIENT_DESCRIPTIONS.items()}
            if rng.random() < 0.6
            else {},
        )

    def rewrite(self, tool: Tool) -> Tool:
        function = dict(cast("dict[str, object]", tool["function"]))
        name = str(function["name"])
        parameters = dict(cast("dict[str, object]", function["parameters"]))
        properties = {
            key: ({"title": _titled(key), **schema} if self.titles else schema)
            for key, schema in cast("dict[str, dict[str, object]]", parameters["properties"]).items()
        }
        parameters["properties"] = properties
        if self.dialect:
            parameters["$schema"] = self.dialect
        if self.titles:
            parameters["title"] = self.title_of_schema.format(name=name, title=_titled(name).replace(" ", ""))
        if self.closed:
            parameters["additionalProperties"] = False
        if self.by_name:
            parameters = dict(sorted(parameters.items()))
        if name in self.own_words:
            function["description"] = self.own_words[name]
        if self.docstring:
            arguments = "\n".join(f"    {key}: The {key}." for key in properties)
            function["description"] = f"{function.get('description', _titled(name))}\n\nArgs:\n{arguments}"
        function["parameters"] = parameters
        if self.strict:
            function["strict"] = True
        return {**tool, "function": function}


def _titled(name: str) -> str:
    return name.replace("_", " ").title()
