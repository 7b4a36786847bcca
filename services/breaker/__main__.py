"""python -m services.breaker"""

from __future__ import annotations

import sys

from services.breaker.app import run
from services.breaker.settings import BreakerSettings
from services.chassis.process import run_room

if __name__ == "__main__":
    sys.exit(run_room(BreakerSettings, run))
