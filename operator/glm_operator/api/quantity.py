"""Kubernetes quantities ("1Gi", "200m", 2) as exact numbers. Pure."""

import math
import re
from fractions import Fraction

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
"""The forms accepted in a spec: no sign, no exponent."""

_FACTORS = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTP", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTP", start=1)},
}
_PARTS = re.compile(r"([0-9.]+)([A-Za-z]*)")


def parse_quantity(text: str | int) -> Fraction:
    """Return the value of a quantity. Raises ValueError naming it and the expected form."""
    if not re.match(QUANTITY_PATTERN, str(text)):
        raise ValueError(
            f"{text!r} is not a quantity; write a number with an optional unit, like 200m, 2, 512Mi or 1.5Gi"
        )
    match = _PARTS.fullmatch(str(text))
    assert match is not None
    return Fraction(match[1]) * _FACTORS[match[2]]


def to_bytes(text: str | int) -> int:
    """Return a quantity of bytes, rounded up to a whole one."""
    value = parse_quantity(text)
    return -(-value.numerator // value.denominator)


def canonical(text: str | int) -> str:
    """Return a quantity in the form the API server gives it: no fraction, the largest unit that needs none.

    What is rendered in another form would look changed by somebody at every pass.
    """
    value = Fraction(math.ceil(parse_quantity(text) * 1000), 1000)  # resources know nothing finer
    if str(text).endswith("i") and value.denominator == 1 and value.numerator % 1024 == 0:
        units = [(Fraction(1024**power), f"{suffix}i") for power, suffix in enumerate("KMGTP", start=1)]
    else:
        units = [(Fraction(10) ** (3 * power), suffix) for power, suffix in enumerate("m kMGTP", start=-1)]
    fitting = [(factor, suffix.strip()) for factor, suffix in units if (value / factor).denominator == 1]
    if value == 0:
        return "0"
    factor, suffix = fitting[-1]
    return f"{value / factor}{suffix}"


def mebibytes(num_bytes: int) -> str:
    """Write bytes as whole mebibytes, rounded up, in canonical form."""
    return canonical(f"{-(-num_bytes // 2**20)}Mi")
