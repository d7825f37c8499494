"""Patterns with bounds on the length of what they match."""

from glm_worker.server.structured.patterns.nodes import NO_TEXT, Chars, Choice, Node, Repeat, Sequence, lengths


def fitted(node: Node, low: int, high: int | None) -> Node | None:
    """Return a pattern that matches only what this one does, and only texts of so many characters; None if none fits.

    It may match less than all of them: how the room is divided among parts that repeat is fixed.
    """
    shortest, longest = lengths(node)
    if shortest >= low and (high is None or (longest is not None and longest <= high)):
        return node
    if (high is not None and shortest > high) or (longest is not None and longest < low):
        return None
    match node:
        case Chars():
            return None  # one character fits or does not
        case Choice(options):
            fitting = [found for option in options if (found := fitted(option, low, high)) is not None]
            return Choice(tuple(fitting)) if fitting else None
        case Repeat(part, least, most):
            part_low, part_high = lengths(part)
            if part_low != part_high or not part_low:
                return None if least or low else NO_TEXT
            least = max(least, -(-low // part_low))
            most = _least(most, None if high is None else high // part_low)
            return Repeat(part, least, most) if most is None or least <= most else None
        case Sequence(parts):
            return _fitted_sequence(parts, low, high)


def _fitted_sequence(parts: tuple[Node, ...], low: int, high: int | None) -> Node | None:
    """Give every part its least, the first that can grow what is missing, and share what is left."""
    bounds = [lengths(part) for part in parts]
    growing = [at for at, (shortest, longest) in enumerate(bounds) if longest != shortest]
    shortest = sum(each for each, _ in bounds)
    missing, spare = max(0, low - shortest), None if high is None else high - max(low, shortest)
    found = list(parts)
    for count, at in enumerate(growing):
        least, most = bounds[at]
        takes = missing if most is None else min(missing, most - least)
        missing -= takes
        share = None if spare is None else spare // (len(growing) - count)
        new = fitted(parts[at], least + takes, None if share is None else least + takes + share)
        if new is None:
            return None
        found[at] = new
        if spare is not None:
            now = lengths(new)[1]
            assert now is not None
            spare -= max(0, now - least - takes)
    return None if missing else Sequence(tuple(found))


def _least(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
