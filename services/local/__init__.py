"""The local stack: an embedded PostgreSQL and every service as a process of its own, for `make up`, the demo and tests.

`services.__main__` is its door. Starts the rooms as subprocesses and never imports them; production uses none of this.
"""
