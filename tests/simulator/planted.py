"""Bugs to plant, one by one. Those of statements are planted into what stands for these in the simulator."""

from __future__ import annotations

from tests.simulator.bug import Bug
from tests.simulator.planted_apart import APART

_ADVANCE = "valkyr/flow/advance.py"
_ATTEMPTS = "valkyr/flow/attempts.py"
_DUE = "valkyr/flow/due.py"
_EDGES = "valkyr/flow/edges.py"
_ENDINGS = "valkyr/flow/endings.py"
_INTAKE = "valkyr/flow/intake.py"
_JOINS = "valkyr/flow/joins.py"
_LEASING = "valkyr/flow/leasing.py"
_RESOLUTIONS = "valkyr/flow/resolutions.py"
_SIGHTS = "valkyr/flow/sights.py"
_STATES = "valkyr/flow/states.py"
_STEP = "valkyr/flow/step.py"
_WRITES = "valkyr/flow/writes.py"
_STATEMENTS = "tests/simulator/store.py"

_OF_GRAPHS = (
    Bug(
        "the fence looks at no epoch",
        _ATTEMPTS,
        "if facts is None or facts.epoch != epoch:",
        "if facts is None:",
    ),
    Bug(
        "a report of a run that nobody holds counts",
        _ATTEMPTS,
        "return Fence.ACCEPTED if facts.state is RunState.LEASED else Fence.ALREADY_REPORTED",
        "return Fence.ACCEPTED",
    ),
    Bug(
        "a lost lease leaves its epoch behind",
        _WRITES,
        "raise_epoch=isinstance(event.result, Lost | Omitted),\n        failures=after.failures,",
        "raise_epoch=False,\n        failures=after.failures,",
    ),
    Bug(
        "the reaper takes leases that were extended",
        _LEASING,
        "return row.facts.state is RunState.LEASED and row.lease_expired",
        "return row.facts.state is RunState.LEASED",
    ),
    Bug(
        "two ends of a lease in one batch both count",
        _INTAKE,
        "if node in self.moved:",
        "if node in self.resolved:",
    ),
    Bug(
        "an edge counts down twice",
        _JOINS,
        "Gate(gate.unmet - 1, gate.taken + 1,",
        "Gate(gate.unmet - 2, gate.taken + 1,",
    ),
    Bug(
        "a join of ALL is ready at the first taken edge",
        _JOINS,
        "if join is Join.ANY and gate.taken > 0:",
        "if gate.taken > 0:",
    ),
    Bug(
        "a dead edge is forgiven where another was taken",
        _JOINS,
        "if gate.dead:",
        "if gate.dead and gate.taken == 0:",
    ),
    Bug(
        "a join of ANY opens again at the next edge",
        _ADVANCE,
        "if facts.state is not RunState.PENDING:\n        return  # an ANY join that is open already",
        "if facts.state is RunState.SUCCESS:\n        return",
    ),
    Bug(
        "a skip goes no further than one node",
        _ADVANCE,
        "walk.queue.append(_Skipped(target.index, SourceEnd.SKIPPED))",
        "pass",
    ),
    Bug(
        "a skip behind a dead edge is an ordinary skip",
        _ADVANCE,
        "walk.queue.append(_Skipped(target.index, SourceEnd.SKIPPED_DEAD))",
        "walk.queue.append(_Skipped(target.index, SourceEnd.SKIPPED))",
    ),
    Bug(
        "a handled failure kills what follows by SUCCESS",
        _EDGES,
        "SourceEnd.HANDLED: {\n        EdgeKind.SUCCESS: Decision.NOT_TAKEN,",
        "SourceEnd.HANDLED: {\n        EdgeKind.SUCCESS: Decision.DEAD,",
    ),
    Bug(
        "an ALWAYS edge is decided at each end",
        _EDGES,
        "if rule is _By.CONDITION_ONCE and decided_before:",
        "if rule is _By.CONDITION_ONCE and decided_before and end is SourceEnd.QUARANTINED:",
    ),
    Bug(
        "that ALWAYS edges were decided is forgotten",
        _ADVANCE,
        "failure=failed, always_decided=not fast)",
        "failure=failed, always_decided=False)",
    ),
    Bug(
        "a broken condition quarantines nothing",
        _EDGES,
        "return Decision.BROKEN, str(error)",
        'return Decision.TAKEN, ""',
    ),
    Bug(
        "an ALWAYS edge handles a failure",
        _ADVANCE,
        "if edge.kind is EdgeKind.FAILURE\n    )",
        "if edge.kind is not EdgeKind.SUCCESS\n    )",
    ),
    Bug(
        "one attempt more than the budget has",
        _ATTEMPTS,
        "or failures >= policy.max_attempts:",
        "or failures > policy.max_attempts:",
    ),
    Bug(
        "failures use up the budget of lost runners",
        _ATTEMPTS,
        "if lost >= policy.max_lost_leases:",
        "if lost + facts.failures >= policy.max_lost_leases:",
    ),
    Bug(
        "a lost runner counts as a failure",
        _ATTEMPTS,
        "return RetryAfter(delay, facts.failures, lost)",
        "return RetryAfter(delay, facts.failures + 1, lost)",
    ),
    Bug(
        "a snooze burns an attempt",
        _ATTEMPTS,
        "return RetryAfter(max(result.delay, timedelta()), facts.failures, facts.lost_leases)",
        "return RetryAfter(max(result.delay, timedelta()), facts.failures + 1, facts.lost_leases)",
    ),
    Bug(
        "what can never work is tried again",
        _ATTEMPTS,
        "if failure.type is FailureType.PERMANENT or failures",
        "if failures",
    ),
    Bug(
        "the back-off has no upper bound",
        "valkyr/retry.py",
        "return maximum if base and factor > maximum // base else base * factor",
        "return base * factor",
    ),
    Bug(
        "the target's own wish for a pause is not heard",
        _ATTEMPTS,
        "return RetryAfter(max(delay, failure.retry_after or delay), failures, facts.lost_leases)",
        "return RetryAfter(delay, failures, facts.lost_leases)",
    ),
    Bug(
        "a run past its deadline is tried again",
        _ATTEMPTS,
        "if facts.deadline_passed:",
        "if facts.deadline_passed and facts.failures > 0:",
    ),
    Bug(
        "a deadline strikes before its time",
        _DUE,
        "if not row.lease.deadline_passed:\n        return None",
        "if row.stop_reason is not None:\n        return None",
    ),
    Bug(
        "a timer rings before its time",
        _DUE,
        "if state is RunState.WAITING and row.due else None",
        "if state is RunState.WAITING else None",
    ),
    Bug(
        "what waits for its back-off may be leased",
        _LEASING,
        "return state is RunState.READY and not control and due",
        "return state is RunState.READY and not control",
    ),
    Bug(
        "what a silent runner may be at is handed off",
        _LEASING,
        "return takes and not row.trusted",
        "return takes",
    ),
    Bug(
        "a breaker that has closed lets nothing go",
        _LEASING,
        "return Look(Way.BRING_BACK, AGAIN)",
        "return Look(Way.SLEEP, AGAIN)",
    ),
    Bug(
        "a quarantine is not told to the DLQ",
        _STEP,
        'writes.outbox.append(self._outbox(key[1], number, "QUARANTINED"))',
        "pass",
    ),
    Bug(
        "a resolution is not told to the DLQ",
        _STEP,
        'writes.outbox.append(self._outbox(event.run_id, event.quarantine_number, "RESOLVED"))',
        "pass",
    ),
    Bug(
        "a cancel leaves READY runs as they are",
        _STATES,
        "CANCELLED_AT_ONCE = frozenset({RunState.PENDING, RunState.READY, RunState.WAITING, RunState.PARKED})",
        "CANCELLED_AT_ONCE = frozenset({RunState.PENDING, RunState.WAITING, RunState.PARKED})",
    ),
    Bug(
        "a success that comes after a cancel is thrown away",
        _ATTEMPTS,
        "    if isinstance(result, Success):\n        return Finish()\n    if facts.ending:\n        return Cancel()",
        "    if facts.ending:\n        return Cancel()\n    if isinstance(result, Success):\n        return Finish()",
    ),
    Bug(
        "under FAIL_FAST the others go on",
        _ADVANCE,
        "return plan.settings.failure_policy is FailurePolicy.FAIL_FAST and any(",
        "return plan.settings.failure_policy is None and any(",
    ),
    Bug(
        "an execution may be ended before its deadline",
        _ENDINGS,
        "if ending or (event.ending is Ending.DEADLINE and not locked.deadline_passed):",
        "if ending:",
    ),
    Bug(
        "an execution that was cancelled takes requeues",
        _RESOLUTIONS,
        "    if ended:",
        "    if ended and deadline_passed:",
    ),
    Bug(
        "two operators may both resolve a quarantine",
        _RESOLUTIONS,
        "if record is not None and record.resolution is not Resolution.PENDING:",
        "if record is not None and record.resolution is event.resolution:",
    ),
    Bug(
        "a discarded run counts as handled",
        _ADVANCE,
        "_leave(walk, node, SourceEnd.DISCARDED, walk.base)",
        "_leave(walk, node, SourceEnd.HANDLED, walk.base)",
    ),
    Bug(
        "a discarded run is not bad any more",
        _STATES,
        "stays = after is RunState.QUARANTINED or (after is RunState.FAILED and not handled)",
        "stays = after is RunState.QUARANTINED",
    ),
    Bug(
        "waiting runs are not counted as open",
        _STATES,
        "MOVABLE_RUN_STATES = frozenset({RunState.READY, RunState.LEASED, RunState.WAITING, RunState.PARKED})",
        "MOVABLE_RUN_STATES = frozenset({RunState.READY, RunState.LEASED, RunState.PARKED})",
    ),
    Bug(
        "an execution ends while its last run is under way",
        _STATES,
        "    if open_runs > 0:\n        return current",
        "    if open_runs > 1:\n        return current",
    ),
    Bug(
        "an execution with a bad run never ends",
        _STATES,
        "return ExecutionState.FAILED if bad_runs > 0 else ExecutionState.SUCCESS",
        "return current if bad_runs > 0 else ExecutionState.SUCCESS",
    ),
    Bug(
        "the revision that is frozen is the one before",
        _STEP,
        "self.revision = locked.revision + 1",
        "self.revision = max(1, locked.revision)",
    ),
    Bug(
        "a run sees what ended after it was ready",
        _SIGHTS,
        "if result.settled_revision is not None and result.settled_revision <= revision:",
        "if result.settled_revision is not None:",
    ),
    Bug(
        "a run behind an ALWAYS edge forgets the error that it saw",
        _SIGHTS,
        "before = [past for past in result.earlier if past.revision <= revision]",
        "before = [past for past in result.earlier if past.revision < 0]",
    ),
    Bug(
        "what becomes ready is not parked by a pause",
        _WRITES,
        "state=RunState.PARKED if paused and change.after is RunState.READY else change.after,",
        "state=change.after,",
    ),
    Bug(
        "what comes back is not parked by a pause",
        _WRITES,
        "state=RunState.PARKED if paused else RunState.READY,",
        "state=RunState.READY,",
    ),
    Bug(
        "a pause forgets to park what is ready",
        _STEP,
        "(writes.paused if intake.paused else writes.resumed).append(self.facts.id)",
        "writes.resumed.append(self.facts.id)",
    ),
    Bug(
        "control nodes are decided while paused",
        _STEP,
        "budget = ControlBudget(0) if self._intake.paused else budget",
        "budget = budget or ControlBudget(0)",
    ),
    Bug(
        "a pause ends with the next outcome",
        _STATES,
        "return current if current is ExecutionState.PAUSED else ExecutionState.RUNNING",
        "return ExecutionState.RUNNING",
    ),
    Bug(
        "a requeued run keeps the failures of before",
        _STATEMENTS,
        "row.failures = row.lost_leases = 0",
        "row.lost_leases = 0",
    ),
    Bug(
        "a lease leaves the epoch as it was",
        _STATEMENTS,
        "        row.epoch += 1\n        row.attempt += 1",
        "        row.attempt += 1",
    ),
    Bug(
        "a heartbeat extends a lease that is told to stop",
        _STATEMENTS,
        "            if row.stop_reason is None:\n                row.lease_until = max(",
        "            if row.epoch:\n                row.lease_until = max(",
    ),
    Bug(
        "nobody remembers how long a silent runner is trusted",
        _STATEMENTS,
        "row.stop_reason, row.trusted_until = reason, row.lease_until",
        "row.stop_reason = reason",
    ),
)

BUGS = _OF_GRAPHS + APART
