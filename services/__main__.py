"""`python -m services`: the local stack, which is what `make up` runs. `--help` says everything."""

from __future__ import annotations

import sys

from services.local.command import main

if __name__ == "__main__":
    sys.exit(main())
