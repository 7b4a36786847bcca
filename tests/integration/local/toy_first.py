"""The first toy, as a module to start."""

import asyncio
import sys

from tests.integration.local.toy_service import FIRST, main

sys.exit(asyncio.run(main(FIRST)))
