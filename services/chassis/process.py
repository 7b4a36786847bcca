"""A room as a process: arguments, settings, telemetry, event loop, exit code. The five lines of each `__main__.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from services.chassis.schema import MigrationError
from services.chassis.settings import RoomSettings, SettingsError, load_settings
from valkyr import telemetry
from valkyr.errors import ValkyrError

# Read when grpc is first imported, which this module does not do: what it has to say at INFO is said in no log of ours.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

EXIT_FAILED = 1
EXIT_SETTINGS = 2

Model = TypeVar("Model", bound=RoomSettings)
_log = telemetry.get_logger(__name__)


def run_room(
    model: type[Model],
    run: Callable[[Model], Coroutine[Any, Any, None]],
    *,
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Loads the settings of `model.section` and runs `run` until it returns. The process's exit code: 0, or 2 if the
    settings cannot be used (said on stderr), or 1 if something else kept it from starting (said in the log)."""
    options = _parser(model.section).parse_args(arguments)
    environ = os.environ if environ is None else environ
    if options.insecure:
        environ = {**environ, "VALKYR_SERVER__INSECURE": "true"}
    try:
        settings = load_settings(model, section=model.section, environ=environ, config_file=options.config)
    except SettingsError as error:
        if options.check_settings:
            sys.stdout.write("".join(f"{problem}\n" for problem in error.problems))
        else:
            sys.stderr.write(f"{error}\n")
        return EXIT_SETTINGS
    if options.check_settings:
        return 0
    observed = telemetry.configure(
        model.section,
        log_level=settings.telemetry.log_level,
        log_format=settings.telemetry.log_format,
        otlp_endpoint=settings.telemetry.otlp_endpoint,
        sample_ratio=settings.telemetry.sample_ratio,
    )
    try:
        uvloop.run(run(settings))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_SETTINGS
    except (ValkyrError, MigrationError) as error:
        _log.critical("process.failed", error=str(error))
        return EXIT_FAILED
    finally:
        observed.shutdown()
    return 0


def _parser(section: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m services.{section.replace('-', '_')}")
    parser.add_argument("--config", type=Path, help="a YAML file with settings (VALKYR_CONFIG)")
    parser.add_argument(
        "--insecure", action="store_true", help="allow addresses other than loopback, without encryption"
    )
    parser.add_argument(
        "--check-settings", action="store_true", help="only read the settings; what is wrong is said one a line"
    )
    return parser
