"""`python -m services` with toys in place of the services, and bounds short enough to wait for."""

from __future__ import annotations

import asyncio
import os
import sys

from services.local.command import complain, run
from services.local.errors import StackError
from services.local.home import LOG_LIMIT, home_at
from services.local.ports import parse_port_base
from services.local.speech import Speech
from services.local.supervisor import StackSettings
from tests.integration.local.toy_service import FIRST, SECOND


def main() -> int:
    """Arguments are the command to run, if any."""
    try:
        settings = StackSettings(
            home_at(os.environ["VALKYR_HOME"]),
            parse_port_base(os.environ["VALKYR_PORT_BASE"]),
            database_url=os.environ.get("VALKYR_DATABASE_URL"),
            rooms=(FIRST, SECOND),
            check_settings=False,
            migrate=False,
            log_limit=int(os.environ.get("TOY_LOG_LIMIT", LOG_LIMIT)),
            log_look=0.05,
            stop_timeout=float(os.environ.get("TOY_STOP_TIMEOUT", "10")),
        )
        return asyncio.run(run(settings, Speech(), command=sys.argv[1:]))
    except StackError as error:
        complain(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
