"""The exception for an input that can never be used, which becomes a row with a permanent status."""

from __future__ import annotations


class InputRefused(Exception):  # noqa: N818, an outcome of an input, not a fault
    """An image or text that cannot be used, now or on a later try.

    Args:
        status: The permanent status of its row, one word such as `empty` or `truncated`.
        message: Why, in a few words; never quotes the content.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"
