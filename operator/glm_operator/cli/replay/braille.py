"""Curves in characters: two columns and four rows of dots each. Pure."""

from collections.abc import Sequence

_LEFT = (0x40, 0x04, 0x02, 0x01)  # dots of the left column, from below
_RIGHT = (0x80, 0x20, 0x10, 0x08)


def area(values: Sequence[float | None], top: float, rows: int) -> list[str]:
    """Return a filled curve, the highest row first. Two values a character; None is a gap; what is above top is cut."""
    filled = [_height(value, top, rows * 4) for value in values]
    if len(filled) % 2:
        filled.append(0)
    lines = []
    for row in reversed(range(rows)):
        base = row * 4
        cells = (
            sum(dot for dots, height in ((_LEFT, left), (_RIGHT, right)) for dot in dots[: max(0, height - base)])
            for left, right in zip(filled[::2], filled[1::2], strict=True)
        )
        lines.append("".join(chr(0x2800 + cell) for cell in cells))
    return lines


def _height(value: float | None, top: float, dots: int) -> int:
    if value is None or top <= 0:
        return 0
    return max(1 if value > 0 else 0, min(dots, round(value / top * dots)))
