"""Figures as text: tables, records, the published page."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.__main__ import report
from benchmarks.figures import FIGURES, Measured, Summary
from benchmarks.publish import BEGIN, END, figures, publish, published, replaced
from benchmarks.record import Record, read_record
from benchmarks.sizes import FULL, QUICK
from benchmarks.table import HEADINGS, costs, markdown, number, rows, terminal, verdict

MACHINE = {"cores": 2, "cpu": "a CPU", "memory_mib": 4096, "kernel": "6.1", "filesystem": "ext4", "fsync_us": 50.0}
VERSIONS = {"commit": "abc", "python": "3.11", "grpcio": "1", "asyncpg": "0"}
POSTGRES = {"server_version": "18", "fsync": "on", "synchronous_commit": "on"}


def a_record(*rounds: dict[str, Measured]) -> Record:
    settings = {"postgres": POSTGRES, "sizes": asdict(FULL)}
    return Record("2026-01-02T03:04:05+00:00", MACHINE, VERSIONS, settings, list(rounds))


def a_measure(rate: float, **cost: float) -> Measured:
    return Measured({"W1.one": rate}, {"1 client": {**cost, "all": sum(cost.values())}})


def test_a_row_has_budget_median_range_ratio_and_whether_it_is_met() -> None:
    [row] = rows([Summary(FIGURES["W1.one"], [4000.0, 6000.0, 5500.0])])
    assert dict(zip(HEADINGS, row, strict=True)) == {
        "workload": "W1",
        "what": FIGURES["W1.one"].what,
        "budget": "5,000 /s",
        "measured": "5,500 /s",
        "min - max": "4,000 - 6,000",
        "ratio": "1.10",
        "met": "yes",
    }


def test_a_row_of_one_round_has_no_range_and_one_without_a_budget_no_verdict() -> None:
    [row] = rows([Summary(FIGURES["W1.noop"], [4000.0])])
    assert row == ("W1", FIGURES["W1.noop"].what, "", "4,000 /s", "", "", "")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(12345.6, "/s", "12,346 /s"), (3.456, "ms", "3.46 ms"), (0.1234, "s", "0.123 s"), (34.56, "%", "34.6 %")],
    ids=["rate", "ms", "s", "%"],
)
def test_a_number_has_as_many_digits_as_say_something(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_a_table_has_its_columns_side_by_side_or_as_markdown() -> None:
    cells = [("a", "long cell"), ("bcd", "e")]
    assert terminal(("x", "y"), cells) == "x    y\n---  ---------\na    long cell\nbcd  e"
    assert markdown(("x", "y"), cells) == "| x | y |\n| --- | --- |\n| a | long cell |\n| bcd | e |"


def test_costs_are_medians_over_rounds_and_two_clients_are_one_column() -> None:
    rounds = [
        {"W1": a_measure(1.0, executor=executor, client=10.0, **{"client 1": 5.0})}
        for executor in (100.0, 300.0, 200.0)
    ]
    assert costs(rounds) == [("W1", "1 client", "215", "15", "200", "0", "0", "0", "0", "0", "0")]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = a_record({"W1": a_measure(1234.5, executor=1.5)})
    record.write(tmp_path / "deep" / "record.json")
    assert read_record(tmp_path / "deep" / "record.json") == record


@pytest.mark.parametrize("text", ["{}", "[]", '{"rounds": [{"W1": {"no": 1}}]}', "nonsense"], ids=str)
def test_what_is_no_record_is_a_value_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no record"):
        read_record(path)


def test_a_report_says_what_makes_it_doubtful() -> None:
    quiet = a_record({"W1": replace(a_measure(1.0), others=0.01)})
    assert "Doubtful" not in report(quiet)
    loud = a_record({"W1": replace(a_measure(1.0), others=0.01)}, {"W1": replace(a_measure(1.0), others=0.4)})
    assert "Doubtful, as others used much of the machine meanwhile: W1 40%." in report(loud)
    small = replace(quiet, settings={**quiet.settings, "sizes": asdict(QUICK)})
    assert "Doubtful, as the sizes were small" in report(small)
    in_memory = replace(quiet, machine={**MACHINE, "filesystem": "tmpfs"})
    assert "in memory: fsync costs nothing" in report(in_memory)
    assert "Not measured: W3 in round 1: why" in report(replace(quiet, errors=["W3 in round 1: why"]))


def test_a_page_keeps_what_stands_around_the_figures() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="the page has no"):
        replaced("before\nafter\n", "new")


def a_round(**changes: float) -> dict[str, Measured]:
    """Every figure, on its budget but for the changes, by `W1_one`."""
    workloads = dict.fromkeys(figure.workload for figure in FIGURES.values())
    values = {key: changes.get(key.replace(".", "_"), figure.budget or 1.0) for key, figure in FIGURES.items()}
    return {
        name: Measured({key: value for key, value in values.items() if FIGURES[key].workload == name})
        for name in workloads
    }


def test_all_budgets_are_met_only_when_every_figure_was_measured_in_every_round() -> None:
    budgets = sum(1 for figure in FIGURES.values() if figure.budget is not None)
    assert verdict(a_record(a_round(), a_round())) == f"All {budgets} budgets are met."
    missed = verdict(a_record(a_round(W1_one=4999.0)))
    assert missed == f"Of {budgets} budgets {budgets - 1} are met, 1 are missed."
    once = a_round()
    del once["W3"]
    workloads = len(a_round())
    assert verdict(a_record(a_round(), once)) == (
        f"Of {budgets} budgets {budgets} are met. "
        f"{workloads - 1} of {workloads} workloads were measured in every round; missing: W3."
    )


def test_a_part_of_the_workloads_is_published_as_a_part() -> None:
    part = figures(a_record({"W1": a_measure(5000.0)}))
    assert "budgets are met." not in part
    assert "were not measured" in part
    assert "missing: W0, W1, W2," in part


def test_what_could_not_be_measured_and_what_is_doubtful_is_published() -> None:
    record = a_record({"W1": replace(a_measure(5000.0), others=0.4)})
    page = figures(replace(record, errors=["W3 in round 1: a client has ended:\nwhy"]))
    assert "- Not measured: W3 in round 1: a client has ended: why" in page
    assert "- Doubtful, as others used much of the machine meanwhile: W1 40%." in page


def test_a_record_is_published_without_the_statements() -> None:
    measured = replace(a_measure(1.0), detail={"statements": [{"query": "SELECT 1"}], "latencies_ms": [1.0]})
    assert published(a_record({"W1": measured})).of("W1")[0].detail == {"latencies_ms": [1.0]}


def test_small_sizes_are_not_published(tmp_path: Path) -> None:
    record = a_record({"W1": a_measure(1.0)})
    replace(record, settings={**record.settings, "sizes": asdict(QUICK)}).write(tmp_path / "record.json")
    with pytest.raises(ValueError, match="other sizes"):
        publish(tmp_path / "record.json", tmp_path)


def test_the_page_of_the_project_has_a_place_for_figures() -> None:
    page = Path(__file__).parents[3] / "docs" / "performance" / "README.md"
    assert "new figures" in replaced(page.read_text(), "new figures")
