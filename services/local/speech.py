"""What the stack says on the terminal: few lines, coloured only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

BOLD, RED, YELLOW, GREEN, DIM = "1", "31", "33", "32", "2"


class Speech:
    """Writes lines at once. A reader who has gone (`make up | head`) does not stop the stack."""

    def __init__(self, stream: TextIO | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._coloured = self._stream.isatty() and not (environ or os.environ).get("NO_COLOR")

    def say(self, text: str = "", colour: str = "") -> None:
        """One line, or several."""
        try:
            self._stream.write((self.paint(text, colour) if colour else text) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text
