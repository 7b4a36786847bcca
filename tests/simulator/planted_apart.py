"""Bugs to plant apart from the graph: in ends, deadlines, pauses, what is recorded, breakers, and waits."""

from __future__ import annotations

from tests.simulator.bug import Bug

_ADVANCE = "valkyr/flow/advance.py"
_DUE = "valkyr/flow/due.py"
_ENDINGS = "valkyr/flow/endings.py"
_INTAKE = "valkyr/flow/intake.py"
_LEASING = "valkyr/flow/leasing.py"
_PAUSES = "valkyr/flow/pauses.py"
_RESOLUTIONS = "valkyr/flow/resolutions.py"
_STATES = "valkyr/flow/states.py"
_STEP = "valkyr/flow/step.py"
_WRITES = "valkyr/flow/writes.py"
_STATEMENTS = "tests/simulator/store.py"

APART = (
    Bug(
        "every cancel is said to be done already",
        _ENDINGS,
        "    if locked.state in SETTLED_EXECUTION_STATES:\n        return _answer",
        "    if event.ending is Ending.CANCEL:\n        return Fence.ALREADY_REPORTED\n"
        "    if locked.state in SETTLED_EXECUTION_STATES:\n        return _answer",
    ),
    Bug(
        "the deadline of an execution ends nothing",
        _ENDINGS,
        "if ending or (event.ending is Ending.DEADLINE and not locked.deadline_passed):",
        "if ending or event.ending is Ending.DEADLINE:",
    ),
    Bug(
        "the deadline of a run ends nothing",
        _DUE,
        "    if not row.lease.deadline_passed:\n        return None",
        "    return None",
    ),
    Bug(
        "the deadline of a run that nobody holds ends nothing",
        _DUE,
        "_HELD_BY_NOBODY = (RunState.READY, RunState.WAITING, RunState.PARKED)",
        "_HELD_BY_NOBODY = (RunState.WAITING,)",
    ),
    Bug(
        "no run gets the deadline of its node",
        _WRITES,
        "        deadline=deadline,\n    )",
        "        deadline=None,\n    )",
    ),
    Bug(
        "a pause is accepted and does nothing",
        _INTAKE,
        "        if accepted:\n            self.state = state_after(event)",
        "        if accepted and not isinstance(event, PauseExecution):\n            self.state = state_after(event)",
    ),
    Bug(
        "every pause is said to be done already",
        _PAUSES,
        "return Fence.ALREADY_REPORTED if isinstance(event, PauseExecution) is paused else Fence.ACCEPTED",
        "return Fence.ALREADY_REPORTED if isinstance(event, PauseExecution) else Fence.ACCEPTED",
    ),
    Bug(
        "a request to pause that comes again pauses again",
        _PAUSES,
        "    if first is not None:\n        return _answer_to_repeat(event, first)",
        "    if first is not None and paused:\n        return _answer_to_repeat(event, first)",
    ),
    Bug(
        "a request to pause is not known again within its batch",
        _INTAKE,
        "self.asked = {**self.asked, (kind, request.request_id): Asked(self.facts.id, request.hash)}",
        "pass",
    ),
    Bug(
        "an end does not know of another before it in its batch",
        _INTAKE,
        "answer_to_end(event, self.locked, ending=self.ended_by)",
        "answer_to_end(event, self.locked, ending=self.locked.ending)",
    ),
    Bug(
        "a cancel is told that it was done by a deadline",
        _ENDINGS,
        "if event.ending is Ending.CANCEL and ending not in (None, Ending.CANCEL):",
        "if event.ending is Ending.CANCEL and locked.ending not in (None, Ending.CANCEL):",
    ),
    Bug(
        "without a plan the letters of an execution that failed stay for ever",
        _RESOLUTIONS,
        "return None if planned or settled or ended else",
        "return None if planned or ended else",
    ),
    Bug(
        "requests to pause are not remembered",
        _STEP,
        "        writes.interventions += intake.interventions\n",
        "",
    ),
    Bug(
        "attempts that failed are not recorded",
        _STEP,
        "        writes.attempts += intake.attempts\n",
        "",
    ),
    Bug(
        "the breakers are told nothing",
        _STEP,
        "        writes.calls += intake.calls\n",
        "",
    ),
    Bug(
        "a Delay takes ten times as long",
        _ADVANCE,
        "wake_after=delay)",
        "wake_after=delay * 10)",
    ),
    Bug(
        "a Delay takes no time",
        _ADVANCE,
        "wake_after=delay)",
        "wake_after=delay * 0)",
    ),
    Bug(
        "every letter speaks of too many attempts",
        _STEP,
        "                failure.letter,\n                failure.error_type,",
        '                "MAX_RETRIES",\n                failure.error_type,',
    ),
    Bug(
        "a requeue with a new key keeps the old one",
        _STEP,
        "key_number=event.quarantine_number if event.new_key else before.key_number",
        "key_number=before.key_number",
    ),
    Bug(
        "a fix does not lift a deadline that has passed",
        _STEP,
        "writes.deadlines.append((self.facts.id, None))",
        "pass",
    ),
    Bug(
        "an execution that has begun is PENDING",
        _STATES,
        "return current if current is ExecutionState.PAUSED else ExecutionState.RUNNING",
        "return current if current is not ExecutionState.FAILED else ExecutionState.RUNNING",
    ),
    Bug(
        "a run is written twice in one transaction",
        _STEP,
        "                writes.add_reported(change, reported, after, self.rows[change.node].lease, self.revision)\n"
        "                continue",
        "                writes.add_reported(change, reported, after, self.rows[change.node].lease, self.revision)",
    ),
    Bug(
        "what another pool takes is handed off",
        _LEASING,
        "return takes and not row.trusted",
        "return not row.trusted",
    ),
    Bug(
        "runs are leased for targets that are known to be open",
        "tests/simulator/executor.py",
        "return not target or self.world.breakers.closed(self, target)",
        "return True",
    ),
    Bug(
        "where breakers are away, what is parked stays so",
        _LEASING,
        "return Look(Way.BRING_BACK_DUE, AGAIN) if closed else Look(Way.POSTPONE, wait)",
        "return Look(Way.POSTPONE, wait)",
    ),
    Bug(
        "leave for a probe is asked for too early",
        _LEASING,
        "    if wait > timedelta():\n        return Look(Way.POSTPONE if",
        "    if wait < timedelta():\n        return Look(Way.POSTPONE if",
    ),
    Bug(
        "an open breaker lets all go",
        _LEASING,
        "    if closed:\n        return Look(Way.BRING_BACK",
        "    if wait >= timedelta():\n        return Look(Way.BRING_BACK",
    ),
    Bug(
        "a resume forgets the back-off",
        _STATEMENTS,
        "row.ready_at = max(self.now, row.retry_after or self.now)",
        "row.ready_at = self.now",
    ),
    Bug(
        "a pause forgets the back-off",
        _STATEMENTS,
        "row.retry_after = row.retry_after if row.parked_by is None else None",
        "row.retry_after = None",
    ),
    Bug(
        "a heartbeat forgets failures",
        _STATEMENTS,
        "                row.lease_until = max(row.lease_until, self.now + self.lease)",
        "                row.lease_until, row.failures = max(row.lease_until, self.now + self.lease), 0",
    ),
    Bug(
        "a lease that a list is too old to name is given back",
        "tests/simulator/executor.py",
        "self._give_back(holder, set(leases), as_of)",
        "self._give_back(holder, set(leases), self.world.clock.now)",
    ),
    Bug(
        "who is parked by a breaker loses the deadline",
        _STATEMENTS,
        "            row.state, row.parked_by = RunState.PARKED, BREAKER",
        "            row.state, row.parked_by, row.deadline = RunState.PARKED, BREAKER, None",
    ),
    Bug(
        "what was found before a requeue counts after it",
        _DUE,
        "as_it_was = row.undecided and row.quarantine_number == event.quarantine_number",
        "as_it_was = row.undecided",
    ),
    Bug(
        "what was found counts though the run may be leased",
        _DUE,
        "as_it_was = row.undecided and row.quarantine_number == event.quarantine_number",
        "as_it_was = row.quarantine_number == event.quarantine_number",
    ),
    Bug(
        "outputs of an equal are lost",
        "valkyr/flow/step.py",
        "given = intake.resolved.get(node) or intake.reused.get(node)",
        "given = intake.resolved.get(node)",
    ),
    Bug(
        "no equal is looked for after a requeue",
        _STATEMENTS,
        "row.undecided, row.dedupes = row.node.decided_first, False",
        "row.dedupes = False",
    ),
    Bug(
        "what was reused is reused once more",
        _STATEMENTS,
        "row.undecided, row.dedupes = row.node.decided_first, False",
        "row.undecided = row.node.decided_first",
    ),
    Bug(
        "a run is handed off before its equal is looked for",
        "tests/simulator/executor.py",
        "return node.dedupe is None and OWN.takes(node)",
        "return OWN.takes(node)",
    ),
    Bug(
        "who waits for a retry is looked at an hour later",
        "tests/simulator/looks.py",
        "case RunState.READY if self._is_due(row.ready_at, world):",
        "case RunState.READY if self._is_due((row.ready_at or 0) + 3600 * (row.failures > 0), world):",
    ),
)
