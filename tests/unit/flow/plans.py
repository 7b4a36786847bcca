"""Plans without an expression language: conditions are words, configs are plain values.

Conditions: `yes`, `no`, `broken`, or `v of <node id>`, which holds where that node's outputs have `v` of 1, does not
where it is 0, and cannot be evaluated where there is none. Classes: `Delay` and the empty one are control nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from valkyr.flow.edges import CannotEvaluate
from valkyr.flow.plan import Control, Plan, Sight, make_plan
from valkyr.graph.model import Graph, Module

CONTROL = {"": Control.PASS_THROUGH, "Delay": Control.DELAY}
_VALUE_OF = "v of "


@dataclass(frozen=True)
class Word:
    """A condition that is a word. `seen` collects what it was shown."""

    text: str
    seen: list[Sight] = field(default_factory=list)

    @property
    def references(self) -> frozenset[str]:
        return frozenset({self.text.removeprefix(_VALUE_OF)} if self.text.startswith(_VALUE_OF) else ())

    def holds(self, sight: Sight) -> bool:
        self.seen.append(sight)
        if self.text.startswith(_VALUE_OF):
            return _value(sight, self.text.removeprefix(_VALUE_OF)) == 1
        if self.text == "broken":
            raise CannotEvaluate("the word is broken")
        return {"yes": True, "no": False}[self.text]


def _value(sight: Sight, node_id: str) -> Any:
    outputs = sight.nodes[node_id]["outputs"]
    if not isinstance(outputs, Mapping) or "v" not in outputs:
        raise CannotEvaluate(f"there is no v in {node_id}")
    return outputs["v"]


@dataclass(frozen=True)
class Config:
    """`{"duration": "PT1S"}` as it is; `{"duration of": "a"}` takes it from the outputs of node `a`."""

    value: Mapping[str, Any]

    @property
    def references(self) -> frozenset[str]:
        return frozenset({self.value["duration of"]} if "duration of" in self.value else ())

    @property
    def constant(self) -> bool:
        return not self.references

    def resolve(self, sight: Sight) -> Any:
        for node_id in self.references:
            outputs = sight.nodes[node_id]["outputs"]
            if outputs is None:
                raise CannotEvaluate(f"{node_id} has no outputs")
            return {"duration": outputs.get("duration")}
        return self.value


def plan_of(graph: Graph) -> Plan:
    return make_plan(graph, compile_condition=Word, compile_config=_config, control_of=CONTROL.get)


def _config(module: Module | None) -> Config:
    return Config(module.config if module is not None and module.config is not None else {})
