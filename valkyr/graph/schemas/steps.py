"""Counts what a check costs, so that no schema and no config makes it endless."""

from __future__ import annotations


class TooManySteps(Exception):
    """A check would cost more than it may."""


class Steps:
    """How many steps are left; one is about a microsecond."""

    def __init__(self, allowed: int) -> None:
        self.left = allowed

    def take(self, count: int = 1) -> None:
        """TooManySteps when none are left."""
        self.left -= count
        if self.left < 0:
            raise TooManySteps
