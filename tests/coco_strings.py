"""The COCO string of run lengths by its definition, for tests to compare with."""


def sum_of_runs(text: str) -> int | None:
    """Add up the runs of a COCO string in unlimited integers; None where it is none."""
    runs, value, shift = [], 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return None if shift or not runs or min(runs) < 0 else sum(runs)
