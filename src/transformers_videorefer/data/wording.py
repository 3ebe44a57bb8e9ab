"""Words of messages that depend on a number."""


def count_of(number: int, noun: str) -> str:
    """Write a number with its noun.

    Args:
        number (`int`): How many there are.
        noun (`str`): One of them, of the words that take an "s".

    Returns:
        `str`: "1 row", "2 rows".
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
