"""python -m services.graph_store"""

from __future__ import annotations

import sys

import uvloop

from services.chassis.settings import SettingsError, load_settings
from services.graph_store.app import run
from services.graph_store.settings import GraphStoreSettings
from valkyr import telemetry


def main() -> int:
    """Serves until told to stop; 2 if the settings cannot be used."""
    try:
        settings = load_settings(GraphStoreSettings, section=GraphStoreSettings.section)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    observed = telemetry.configure(
        "graph-store",
        log_level=settings.telemetry.log_level,
        log_format=settings.telemetry.log_format,
        otlp_endpoint=settings.telemetry.otlp_endpoint,
        sample_ratio=settings.telemetry.sample_ratio,
    )
    try:
        uvloop.run(run(settings))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        observed.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
