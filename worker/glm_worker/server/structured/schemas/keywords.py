"""Which keywords of JSON schema are kept, which say nothing about values, and which are refused by name."""

SAY_NOTHING = frozenset(
    {
        *("$comment", "$schema", "title", "description", "default", "example", "examples", "deprecated"),
        *("readOnly", "writeOnly", "$defs", "definitions", "nullable", "discriminator", "externalDocs", "xml"),
        *("contentEncoding", "contentMediaType", "contentSchema", "propertyOrdering"),
    }
)
"""nullable is OpenAPI's, and no validator of JSON schema knows it: an answer that is not null is right for both."""

OF_TYPE: dict[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "unevaluatedItems"}),
    "object": frozenset(
        {
            *("properties", "required", "additionalProperties", "unevaluatedProperties", "patternProperties"),
            *("propertyNames", "minProperties", "maxProperties"),
        }
    ),
}
COMBINE = frozenset({"$ref", "allOf", "anyOf", "oneOf", "type", "enum", "const"})
REFUSED = frozenset(
    {
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "additionalItems"),
        *("dependencies", "dependentRequired", "dependentSchemas"),
        *("$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary"),
    }
)
KEPT = frozenset().union(COMBINE, *OF_TYPE.values())

# Counted repeats of many characters are costly to compile: where a format has them, a text without end of it is taken.
_YEAR = "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+\-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = "[A-Za-z0-9]+(-[A-Za-z0-9]+)*"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
FORMATS: dict[str, str] = {
    "date": f"{_YEAR}-{_DAY}",
    "time": _TIME,
    "date-time": f"{_YEAR}-{_DAY}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"({_OCTET}\.){{3}}{_OCTET}",
    "ipv6": "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "hostname": rf"{_LABEL}(\.{_LABEL})*",
    "email": rf"[A-Za-z0-9_]+([.+\-][A-Za-z0-9_]+)*@{_LABEL}(\.{_LABEL})+",
    "uri": rf"[a-z]+://{_LABEL}(\.{_LABEL})*(:[0-9]{{1,4}})?(/[A-Za-z0-9._~\-]*)*(\?[A-Za-z0-9._~=&\-]*)?",
    "duration": "P([0-9]{1,4}D(T[0-9]{1,4}H)?|T[0-9]{1,4}[HMS]|[0-9]{1,4}[WMY])",
}
"""What a string of each format looks like: a part of what the format allows, for some (no leap days, no `::`)."""
NUMBER_FORMATS = frozenset({"int32", "int64", "float", "double"})
