"""What can stop the local stack from coming up: a sentence that says what is wrong, another how to mend it."""

from __future__ import annotations


class StackError(Exception):
    """`str(error)` is what happened, with the offending value; `hint` is what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
