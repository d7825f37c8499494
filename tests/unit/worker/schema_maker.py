"""Seeded schemas of every kind that clients send: nested, recursive, combined, bounded, with odd names."""

from random import Random
from typing import Any

Json = dict[str, Any]
NAMES = [
    "id",
    "name",
    "Größe",
    "naïve key",
    "a/b",
    "x~y",
    'quo"te',
    "back\\slash",
    "日本",
    "e\u0301",
    "",
    "$ref",
    "new\nline",
    "🙂",
]
PATTERNS = [
    r"^[A-Z]{2,4}-\d+$",
    r"^(foo|bar)+$",
    r"colou?r",
    r"^\w+@\w+\.com$",
    r"^[^a-z]{1,5}$",
    r"\.(png|jpg)$",
    r"^\S+$",
    r'^"\\[x-z]$',
    r"^.{3}$",
    r"^$",
    r"^a.*z$",
]
FORMATS = ["date", "time", "date-time", "uuid", "ipv4", "ipv6", "hostname", "email", "uri", "duration"]
VALUES: list[Any] = [
    "",
    "a",
    "A b",
    'q"',
    "ü\n",
    0,
    1,
    -3,
    2.5,
    1e3,
    True,
    False,
    None,
    [],
    [1, "2"],
    {"k": None},
    "1",
    "true",
    "null",
]


def make_schema(random: Random) -> Json:
    """Return a schema of a few levels. Some allow no value, or ask for what cannot be kept."""
    maker = _Maker(random)
    schema = maker.node(random.choice([1, 2, 3]))
    if maker.definitions:
        schema = {**schema, "$defs": maker.definitions}
    return schema


class _Maker:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.definitions: Json = {}

    def node(self, depth: int) -> Json:
        leaves = [self.text, self.integer, self.number, self.simple, self.enum]
        inner = [
            self.object,
            self.object,
            self.object,
            self.array,
            self.any_of,
            self.ref,
            self.tree,
            self.one_of,
            self.all_of,
        ]
        found = self.random.choice(leaves if depth == 0 or self.random.random() < 0.25 else inner)(depth)
        if self.random.random() < 0.2:
            found = {**found, "title": "T", "description": "what it is", "examples": [1]}
        return found

    def text(self, depth: int) -> Json:
        kind = self.random.random()
        if kind < 0.35:
            return {"type": "string"}
        if kind < 0.55:
            found: Json = {"type": "string", "pattern": self.random.choice(PATTERNS)}
            return {**found, "maxLength": self.random.randint(3, 30)} if self.random.random() < 0.4 else found
        if kind < 0.7:
            return {"type": "string", "format": self.random.choice(FORMATS)}
        low = self.random.randint(0, 6)
        return {"type": "string", "minLength": low, "maxLength": low + self.random.randint(0, 9)}

    def integer(self, depth: int) -> Json:
        found: Json = {"type": "integer"}
        low = self.random.choice([-1000, -7, 0, 1, 99, 12345])
        if self.random.random() < 0.5:
            found[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.5:
            found[self.random.choice(["maximum", "exclusiveMaximum"])] = low + self.random.choice([1, 5, 250, 10**6])
        if self.random.random() < 0.2:
            found["multipleOf"] = self.random.choice([1, 2, 3, 7, 10, 25])
        return found

    def number(self, depth: int) -> Json:
        found: Json = {"type": "number"}
        low = self.random.choice([-273.15, -1, 0, 0.25, 3])
        if self.random.random() < 0.5:
            found[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.5:
            found[self.random.choice(["maximum", "exclusiveMaximum"])] = low + self.random.choice([0.5, 1, 99.9, 1e6])
        return found

    def simple(self, depth: int) -> Json:
        return self.random.choice(
            [
                {"type": "boolean"},
                {"type": "null"},
                {"type": ["string", "null"]},
                {"type": ["integer", "boolean", "array"]},
                {},
            ]
        )

    def enum(self, depth: int) -> Json:
        values = self.random.sample(VALUES, self.random.randint(1, 5))
        return {"const": values[0]} if self.random.random() < 0.3 else {"enum": values}

    def object(self, depth: int) -> Json:
        if self.random.random() < 0.15:
            return self.map(depth)
        names = self.random.sample(NAMES, self.random.randint(0, 5))
        found: Json = {"type": "object", "properties": {name: self.node(depth - 1) for name in names}}
        if self.random.random() < 0.7:
            found["required"] = [name for name in names if self.random.random() < 0.5]
        if self.random.random() < 0.4:
            found["additionalProperties"] = self.random.choice([False, True, {"type": "integer"}])
        if self.random.random() < 0.1:
            found["maxProperties"] = self.random.randint(1, 4)
        if self.random.random() < 0.1:
            found["minProperties"] = self.random.randint(0, 2)
        return found

    def map(self, depth: int) -> Json:
        found: Json = {"type": "object"}
        kind = self.random.random()
        if kind < 0.4:
            return {**found, "additionalProperties": self.node(depth - 1)}
        if kind < 0.6:
            return {**found, "patternProperties": {self.random.choice(PATTERNS): self.node(depth - 1)}}
        if kind < 0.8:
            return {**found, "propertyNames": {"enum": ["a", "b c"]}, "maxProperties": 1}
        return found

    def array(self, depth: int) -> Json:
        found: Json = {"type": "array"}
        if self.random.random() < 0.8:
            found["items"] = self.node(depth - 1)
        if self.random.random() < 0.25:
            found["prefixItems"] = [self.node(depth - 1) for _ in range(self.random.randint(1, 3))]
        if self.random.random() < 0.4:
            found["minItems"] = self.random.randint(0, 3)
        if self.random.random() < 0.4:
            found["maxItems"] = found.get("minItems", 0) + self.random.randint(0, 3)
        return found

    def any_of(self, depth: int) -> Json:
        return {"anyOf": [self.node(depth - 1) for _ in range(self.random.randint(1, 3))]}

    def one_of(self, depth: int) -> Json:
        options = [
            {"type": "object", "properties": {"kind": {"const": kind}, "v": self.node(depth - 1)}, "required": ["kind"]}
            for kind in ("circle", "square")
        ]
        return {"oneOf": [*options, {"type": "null"}]}

    def all_of(self, depth: int) -> Json:
        one = {"type": "object", "properties": {"a": self.node(depth - 1)}, "required": ["a"]}
        other = {"properties": {"b": self.node(depth - 1), "a": {}}, "required": self.random.choice([[], ["b"]])}
        return {"allOf": [one, other]} if self.random.random() < 0.5 else {**one, "anyOf": [{"required": ["a"]}, other]}

    def ref(self, depth: int) -> Json:
        name = self.random.choice(["thing", "a/b", "x~y"])
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self.node(depth - 1)
        return {"$ref": f"#/$defs/{name.replace('~', '~0').replace('/', '~1')}"}

    def tree(self, depth: int) -> Json:
        """A schema that leads back to itself, where it may end."""
        below = {"$ref": "#/$defs/tree"}
        self.definitions["tree"] = {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "left": below, "kids": {"type": "array", "items": below}},
            "required": ["value"],
            "additionalProperties": False,
        }
        return below
