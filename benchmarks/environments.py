"""Environments beside the project's own, made when they are first needed: the project depends on nothing in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.errors import BenchError

FOLDER = Path(__file__).parent / ".venvs"
STAMP = "requirements.txt"


def environment(name: str, requirements: Path) -> Path:
    """The Python of the environment `name`, which has what `requirements` names. BenchError when it cannot be made."""
    folder = FOLDER / name
    python, stamp = folder / "bin" / "python", folder / STAMP
    wanted = requirements.read_text()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(
        str(python), "-m", "pip", "-q", "--disable-pip-version-check", "--no-input", "install", "-r", str(requirements)
    )
    stamp.write_text(wanted)  # last: what was broken off is begun anew
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout).strip()[-500:]}")
