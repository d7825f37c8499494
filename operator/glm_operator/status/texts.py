"""Numbers as people read them: 420ms, 1.23s, 98.7%. Pure."""

import math


def seconds(value: float) -> str:
    """Return a time with three digits, as in 4.2ms, 420ms, 1.23s or 125s."""
    if value < 0.0995:
        return f"{value * 1000:.3g}ms"
    if value < 0.9995:
        return f"{value * 1000:.0f}ms"
    return f"{value:.2f}s" if value < 9.995 else f"{value:.1f}s" if value < 99.95 else f"{value:.0f}s"


def share(value: float) -> str:
    """Return a share of requests, cut and never rounded up: 99.96 % is no 100%."""
    tenths = math.floor(value * 1000 + 1e-9)
    return f"{tenths // 10}%" if tenths % 10 == 0 else f"{tenths / 10:.1f}%"


def percent(value: float) -> str:
    """Return what is left of a budget, in whole per cent, cut; below 0% it is overspent."""
    return f"{math.floor(value * 100 + 1e-9)}%"


def number(value: float) -> str:
    """Return a number with three digits or all before the point, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
