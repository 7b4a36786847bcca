"""Equal runs of one play: looked for among its own nodes, as the executor looks among all executions."""

from __future__ import annotations

from datetime import timedelta

from valkyr.flow.effects import Prepared
from valkyr.flow.events import Reused
from valkyr.flow.states import RunState
from valkyr.graph.model import Dedupe
from valkyr.planning.inputs import Targets
from valkyr.testing.rows import Rows


class Equals:
    """`reused_from`: of each run that was not run, the node whose success it has."""

    def __init__(self, rows: Rows, targets: Targets) -> None:
        self.reused_from: dict[int, int] = {}
        self._rows = rows
        self._targets = targets
        self._keys: dict[int, str] = {}
        self._ended_at: dict[int, timedelta] = {}

    def heard(self, node: int, state: RunState) -> None:
        """Its run came to this state."""
        if state is RunState.SUCCESS:
            self._ended_at[node] = self._rows.now

    def decide(self) -> bool:
        """Ends every READY run that has an equal, and lets the others be leased; whether there were any."""
        rows = self._rows
        ready = [node for node in rows.in_state(RunState.READY) if rows.row(node).undecided]
        for node in ready:
            dedupe = rows.plan.nodes[node].dedupe
            if dedupe is not None:
                self._decide(node, dedupe)
        return bool(ready)

    def _decide(self, node: int, dedupe: Dedupe) -> None:
        self._keys.pop(node, None)
        prepared = self._rows.prepare(node, self._targets)
        source = None if prepared.problem else self._find(prepared.idempotency_key, dedupe)
        if source is not None:
            self.reused_from[node] = source
            self._rows.apply(self._event(node, source, prepared))
            return
        if not prepared.problem:
            self._keys[node] = prepared.idempotency_key
        self._rows.release(node)

    def _find(self, key: str, dedupe: Dedupe) -> int | None:
        since = self._rows.now - dedupe.ttl
        found = [node for node, its in self._keys.items() if its == key and self._ended_at.get(node, since) > since]
        return max(found, key=lambda node: self._ended_at[node], default=None)

    def _event(self, node: int, source: int, prepared: Prepared) -> Reused:
        rows = self._rows
        result = rows.result_of(source)
        outputs = (result.outputs if result is not None else None) or "null"
        return Reused(
            rows.facts.id,
            rows.run_of(node),
            rows.row(node).quarantine_number,
            (rows.facts.id, rows.run_of(source)),
            outputs,
            prepared.idempotency_key,
            prepared.inputs_hash,
            prepared.config_hash,
        )
