"""What commands write to stderr, as tests look at it."""


def without_slow_steps(stderr: str) -> str:
    """Leave out the lines that tell of slow steps: on a busy machine any step may take longer than a second."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.endswith(" ...\n"))
