"""python -m services.graph_store"""

from __future__ import annotations

import sys

from services.chassis.process import run_room
from services.graph_store.app import run
from services.graph_store.settings import GraphStoreSettings

if __name__ == "__main__":
    sys.exit(run_room(GraphStoreSettings, run))
