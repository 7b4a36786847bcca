"""python -m services.executor"""

from __future__ import annotations

import sys

from services.chassis.process import run_room
from services.executor.app import run
from services.executor.settings import ExecutorSettings

if __name__ == "__main__":
    sys.exit(run_room(ExecutorSettings, run))
