"""A file that is never done with being imported."""

from __future__ import annotations

import time

time.sleep(1000)
