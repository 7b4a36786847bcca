"""python -m services.dlq"""

from __future__ import annotations

import sys

from services.chassis.process import run_room
from services.dlq.app import run
from services.dlq.settings import DlqSettings

if __name__ == "__main__":
    sys.exit(run_room(DlqSettings, run))
