"""The forms of text in the API: a pattern for programs, and what it allows in words for people. Pure."""

from glm_operator.api.duration import DURATION_PATTERN
from glm_operator.api.quantity import QUANTITY_PATTERN

SOURCE_PATTERN = (
    r"^(builtin://glm-nano|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9._-]+)*|file://(/[A-Za-z0-9._-]+)+)$"
)
SERVED_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$"
IMAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"
COLLECTOR_PATTERN = r"^https?://[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]*(/[!-~]*)?$"
OBJECT_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DEPLOYMENT_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
RESOURCE_NAME_PATTERN = r"^[a-z0-9A-Z]([-a-zA-Z0-9_./]*[a-zA-Z0-9])?$"

CLASS_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
HEADER_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9-]*$"
HEADER_VALUE_PATTERN = r"^[!-~]([ -~]*[!-~])?$"
ROLE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"
CRON_PATTERN = r"^[0-9A-Za-z*/,#L-]+( [0-9A-Za-z*/,#L-]+){4}$"
TIME_ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"
COUNT_OR_PERCENT_PATTERN = r"^([1-9][0-9]{0,2}|1000|([1-9][0-9]?|100)%)$"
MONEY_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,12})?$"
URL_PATTERN = r"^https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[!-~]*)?$"
CLAIM_NAME_PATTERN = r"^[!-~]+$"
ITEM_NAME_PATTERN = r"^[-._a-zA-Z0-9]+$"
STORE_PATTERN = r"^rediss?://[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]*(/[0-9]{1,3})?$"
ORIGIN_PATTERN = r"^(\*|https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?)$"

FORMS: dict[str, str] = {
    SOURCE_PATTERN: "builtin://glm-nano, pvc://CLAIM/PATH or file:///PATH,"
    " with letters, digits, dots, dashes and underscores in PATH",
    SERVED_NAME_PATTERN: "letters, digits and . _ : / - after a letter or digit, as in zai-org/GLM-4.5",
    IMAGE_PATTERN: "an image reference, as in registry.example/glm-worker:0.1.0",
    COLLECTOR_PATTERN: "the URL of an OTLP/HTTP collector without user or password, as in http://collector:4318/v1/traces",
    OBJECT_NAME_PATTERN: "lower-case letters, digits, dashes and dots, with a letter or digit at both ends",
    DEPLOYMENT_NAME_PATTERN: "lower-case letters, digits and dashes, a letter first and no dash last",
    LABEL_KEY_PATTERN: "the key of a label, as in topology.kubernetes.io/zone",
    LABEL_VALUE_PATTERN: "the value of a label: letters, digits and - _ . between a letter or digit at both ends",
    RESOURCE_NAME_PATTERN: "the name of a resource, as in memory or nvidia.com/gpu",
    COUNT_OR_PERCENT_PATTERN: "a number of groups from 1 to 1000, or 1% to 100% of them",
    CLASS_NAME_PATTERN: "lower-case letters, digits and dashes, with a letter or digit at both ends",
    HEADER_NAME_PATTERN: "the name of a header, as in x-tier",
    HEADER_VALUE_PATTERN: "visible ASCII characters, with spaces between them only",
    ROLE_PATTERN: "letters, digits and . _ : / @ - after a letter or digit, as in developer",
    CRON_PATTERN: "five fields of cron with one space between: minute hour day month weekday, as in 0 8 * * 1-5",
    TIME_ZONE_PATTERN: "the name of a time zone, as in Europe/Berlin or UTC",
    MONEY_PATTERN: "an amount as text, as in '12' or '0.11': at most 9 digits, and 12 behind the point",
    URL_PATTERN: "a URL without user or password, as in https://issuer.example.com",
    CLAIM_NAME_PATTERN: "visible ASCII characters",
    ITEM_NAME_PATTERN: "letters, digits and - _ .",
    STORE_PATTERN: "a URL without user or password, as in redis://valkey:6379/0",
    ORIGIN_PATTERN: "an origin, as in https://chat.example.com, or *",
    DURATION_PATTERN: "a number and a unit of ms, s, m, h or d, as in 500ms, 1.5s or 30d",
    QUANTITY_PATTERN: "a number that is not negative, with an optional unit, as in 2, 200m, 1.5Gi or 512Mi",
}
"""What each pattern allows, in words: no refusal of ours is a regular expression."""
