"""The second toy, as a module to start."""

import asyncio
import sys

from tests.integration.local.toy_service import SECOND, main

sys.exit(asyncio.run(main(SECOND)))
