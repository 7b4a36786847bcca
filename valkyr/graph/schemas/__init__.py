"""JSON Schemas 2020-12 that others wrote, checked before they are used, and configs held against them.

A config may hold expressions, whose values nobody knows yet: what may fit fits. Neither a schema nor a config can make
it take long: every step is counted.
"""

from __future__ import annotations

from valkyr.graph.schemas.compiled import BadSchema, ConfigSchema, compile_schema
from valkyr.graph.schemas.steps import Steps, TooManySteps

__all__ = ["BadSchema", "ConfigSchema", "Steps", "TooManySteps", "compile_schema"]
