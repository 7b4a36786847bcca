"""The ends of executions by the book: each run's life as it was seen, and then what its edges must have come to."""

from __future__ import annotations

from tests.simulator.rows import ExecutionRow
from tests.simulator.world import World
from tests.unit.flow.lives import Go, Lives, Script, Way
from valkyr.flow.events import Resolution
from valkyr.flow.states import RunState
from valkyr.graph.model import Join

_WAY = {Resolution.REQUEUED: Way.REQUEUE, Resolution.FIXED: Way.FIX, Resolution.DISCARDED: Way.DISCARD}


def check_against_reference(world: World, execution: ExecutionRow) -> None:
    """Of an execution that nobody ended: what its runs went through says where every run of it must be."""
    ledger = world.invariants.ledger
    graph = world.workloads[execution.id].graph
    edges = execution.plan.edges
    scripts, opened_by = {}, {}
    for row in execution.runs:
        goes = [Go(go) for go in ledger.goes[row.id]]
        scripts[row.node.node_id] = Script(goes, [_WAY[way] for way in ledger.ways[row.id]])
        if row.node.join is Join.ANY and row.gate.chosen:
            opened_by[row.node.node_id] = edges[row.gate.chosen[0]].edge_id
    lives = Lives(graph, scripts, opened_by)
    try:
        wanted = lives.states()
    except StopIteration:
        ledger.fail("END", "some run of {} did something that its edges do not explain", execution.name)
        return
    for row in execution.runs:
        right = wanted[row.node.node_id]
        if row.id in ledger.cut_off and right is RunState.QUARANTINED:
            right = RunState.FAILED
        if row.state is not right:
            ledger.fail("END", "{} is {}, and must be {}", row.id, row.state, right)
        if row.node.join is Join.ALL and row.gate.unmet == 0 and row.ready_revision is not None:
            taken = [i for i in row.node.incoming if lives.fate(graph.edges[i]) in ("taken", "broken")]
            if taken != [i for i in row.node.incoming if i not in row.gate.excluded]:
                ledger.fail("END", "{} has other inputs than edges that were taken", row.id)
