"""The four services, what they stand on, and the local stack that runs them.

structlog takes rich along wherever that is installed, for tracebacks in colour. Services write none, and it would be
5 MiB of each: here, before anything else of a service, structlog is loaded as if there was no rich.
"""

import sys

if not {"structlog", "rich"} & sys.modules.keys():
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails now, which structlog expects
    import structlog  # noqa: F401

    del sys.modules["rich"]
