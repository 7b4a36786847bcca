"""Who the own pool is, over restarts."""

from __future__ import annotations

from pathlib import Path

from services.chassis.settings import SettingsError
from services.executor.model import new_id

RUNNER_ID_FILE = "runner-id"


def kept_runner_id(home: Path) -> str:
    """The id of the own pool: made once, so that a restart takes back at once what a crash left. SettingsError."""
    path = home / RUNNER_ID_FILE
    try:
        kept = path.read_text().strip() if path.exists() else ""
        if kept:
            return kept
        home.mkdir(parents=True, exist_ok=True)
        runner_id = f"executor-{new_id()}"
        fresh = path.with_suffix(".new")
        fresh.write_text(runner_id + "\n")
        fresh.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"home: the runner's id cannot be kept in {path}: {error}; set executor.runner.id, or another VALKYR_HOME"
        ) from error
    return runner_id
