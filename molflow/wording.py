"""What other libraries' errors say, for messages of one line."""

from __future__ import annotations

LONGEST = 200
"""Letters."""


def in_a_line(error: BaseException) -> str:
    """What an exception says, or what it is if it says nothing. Without NUL, which no database takes."""
    return " ".join(str(error).replace("\0", "").split())[:LONGEST] or type(error).__name__
