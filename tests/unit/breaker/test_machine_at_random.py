"""The breaker's machine at random, against a reference that counts anew, each time, what happened since the last
transition."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from services.breaker.model.calls import CallOutcome, Key, PermitRequest, fold_outcomes, fold_permits
from services.breaker.model.machine import Allow, Circuit, Deny, Holder, Permit, Probe, in_flight
from services.breaker.model.policy import Policy
from services.breaker.model.states import BY_ITSELF, Result, State

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
EPISODE = UUID(int=1)
KEY = Key("default", "http:api.example.com")


@dataclass(slots=True)
class Reference:
    """The same rules, told as a history: what happened since the last transition, counted anew each time."""

    policy: Policy
    state: str = "CLOSED"
    generation: int = 0
    since: list[tuple[str, bool]] = field(default_factory=list)
    retry_at: int = 0
    permits: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def go(self, state: str) -> None:
        self.state, self.generation = state, self.generation + 1
        self.since, self.permits = [], {}

    def ask(self, run: str, now: int, hold: int) -> str:
        if self.state == "OPEN" and now >= self.retry_at:
            self.go("HALF_OPEN")
        if self.state != "HALF_OPEN":
            return "ALLOWED" if self.state == "CLOSED" else "DENIED"
        held = {holder for holder, until in self.permits.items() if until > now}
        if run not in held:
            if len(held) >= self.policy.half_open_permits:
                return "DENIED"
            self.permits[run] = now + hold
        return "PERMIT"

    def report(self, name: str, result: str, generation: int, run: str | None, now: int) -> None:
        if name in self.seen:
            return
        probed = run is not None and generation == self.generation and self.permits.pop(run, None) is not None
        if result == "EXCLUDED" or generation != self.generation:
            return
        if self.state == "CLOSED":
            if result == "FAILURE" or any(failed for _, failed in self.since):
                self.seen.add(name)
            self.since = [*self.since, (name, True)] if result == "FAILURE" else []
            if len(self.since) >= self.policy.failure_threshold:
                self.open(now)
        elif self.state == "HALF_OPEN" and probed:
            self.seen.add(name)
            self.since.append((name, result == "FAILURE"))
            if result == "FAILURE":
                self.open(now)
            elif len(self.since) >= self.policy.half_open_success_threshold:
                self.go("CLOSED")

    def open(self, now: int) -> None:
        self.go("OPEN")
        self.retry_at = now + int(self.policy.timeout_duration.total_seconds())


policies = st.builds(
    Policy,
    failure_threshold=st.integers(1, 4),
    timeout_duration=st.integers(1, 10).map(lambda seconds: timedelta(seconds=seconds)),
    half_open_permits=st.integers(1, 3),
    half_open_success_threshold=st.integers(1, 3),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 5), st.integers(1, 8)),
        st.tuples(
            st.just("report"), st.sampled_from(sorted(Result)), st.integers(0, 5), st.integers(0, 2), st.booleans()
        ),
        st.tuples(st.just("repeat"), st.integers(0, 50)),
        st.tuples(st.just("wait"), st.integers(1, 6)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(policies, steps)
def test_i17_i18_the_machine_does_what_the_reference_does(policy: Policy, script: list[tuple[object, ...]]) -> None:
    Play(policy).run(script)


class Play:
    """Both machines side by side, each fed the same."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.reference = Reference(policy)
        self.circuit = Circuit()
        self.permits: list[Permit] = []
        self.reported: set[str] = set()
        self.sent: list[tuple[CallOutcome, str | None]] = []
        self.seconds = 0
        self.ids = 0

    def run(self, script: list[tuple[object, ...]]) -> None:
        for name, *arguments in script:
            before = self.circuit
            getattr(self, str(name))(*arguments)
            self.check(before)

    def wait(self, seconds: int) -> None:
        self.seconds += seconds

    def ask(self, run: int, hold: int) -> None:
        request = PermitRequest(KEY, Holder(str(run), 1), hold * SECOND)
        folded = fold_permits(
            self.circuit, self.permits, [request], now=self.now, policy=self.policy, new_id=self.new_id
        )
        self.circuit = folded.circuit
        permits = {permit.id: permit for permit in (*self.permits, *folded.granted)}
        self.permits = [permit for permit in permits.values() if permit.id not in folded.ended]
        names = {Allow: "ALLOWED", Deny: "DENIED", Probe: "PERMIT"}
        decision = folded.answers[0].decision
        assert names[type(decision)] == self.reference.ask(str(run), self.seconds, hold)
        if isinstance(decision, Deny):
            assert decision.retry_after > timedelta()

    def report(self, result: Result, run: int, age: int, with_permit: bool) -> None:
        generation = max(0, self.circuit.generation - age)
        mine = [permit for permit in self.permits if permit.holder.run_id == str(run)] if with_permit else []
        permit = mine[0] if mine else None
        outcome = CallOutcome(KEY, result, generation, f"r{len(self.sent)}", permit.id if permit else None)
        self.sent.append((outcome, str(run) if permit and permit.generation == generation else None))
        if permit is not None and permit.generation != generation:
            outcome = replace(outcome, permit_id=None)
            self.sent[-1] = (outcome, None)
        self.tell(*self.sent[-1])

    def repeat(self, number: int) -> None:
        if number < len(self.sent):
            outcome, run = self.sent[number]
            if outcome.report_id in self.reported:
                self.tell(outcome, run)

    def tell(self, outcome: CallOutcome, run: str | None) -> None:
        folded = fold_outcomes(
            self.circuit,
            self.permits,
            [outcome],
            reported=self.reported,
            now=self.now,
            policy=self.policy,
            episode_id=EPISODE,
        )
        self.circuit = folded.circuit
        self.permits = [permit for permit in self.permits if permit.id not in folded.ended]
        self.reported |= set(folded.remembered)
        self.reference.report(outcome.report_id, outcome.result, outcome.generation, run, self.seconds)

    def check(self, before: Circuit) -> None:
        reference, circuit = self.reference, self.circuit
        assert (circuit.state, circuit.generation) == (reference.state, reference.generation)
        assert len(in_flight(circuit, self.permits, self.now)) <= self.policy.half_open_permits
        assert circuit.generation in (before.generation, before.generation + 1)
        if circuit.state is State.OPEN:
            assert circuit.next_retry_at == START + reference.retry_at * SECOND
        if circuit.state is State.CLOSED:
            assert circuit.failure_count == len(reference.since)
        if circuit.generation > before.generation:
            assert (before.state, circuit.state) in BY_ITSELF

    @property
    def now(self) -> datetime:
        return START + self.seconds * SECOND

    def new_id(self) -> UUID:
        self.ids += 1
        return UUID(int=self.ids)
