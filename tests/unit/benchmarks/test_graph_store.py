"""Figures of the graph store as text: beside budgets, and beside the projections for v1."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.figures import Measured
from benchmarks.graph_store.figures import FIGURES, FULL, QUICK, SIZES, V1
from benchmarks.graph_store.graphs import changed, graph_of, with_expressions
from benchmarks.graph_store.publish import PAGE, RECORD, publish
from benchmarks.graph_store.report import report, tables
from benchmarks.publish import BEGIN, END
from benchmarks.record import Record, read_record
from benchmarks.table import markdown
from services.local.home import PROJECT
from tests.unit.benchmarks.test_tables import MACHINE, POSTGRES, VERSIONS
from valkyr.graph.validate import validate
from valkyr.modules import catalogue


def a_record(*workloads: str, sizes: object = None) -> Record:
    round_ = {
        name: Measured(
            {key: 40.0 for key, figure in FIGURES.items() if figure.workload == name},
            {f"save {nodes:,}": {"all": 9.0, "client": 4.0, "graph_store": 5.0}},
        )
        for name, nodes in SIZES.items()
        if name in workloads
    }
    settings = {"postgres": POSTGRES, "sizes": sizes or asdict(FULL)}
    return Record("2026-01-02T03:04:05+00:00", MACHINE, VERSIONS, settings, [round_])


def test_every_size_has_its_figures_and_the_budgets_are_those_of_the_design() -> None:
    assert len(FIGURES) == 10 * len(SIZES)
    budgets = {key: figure.budget for key, figure in FIGURES.items() if figure.budget is not None}
    assert {key: budgets[key] for key in budgets if ".save" in key} == {
        "G1.save": 10,
        "G2.save": 20,
        "G3.save": 120,
        "G4.save": 1_500,
    }
    assert (budgets["G3.get"], budgets["G4.validate"], budgets["G4.configs"]) == (30, 60, 250)
    assert V1 == {"G1.save": 1_200, "G2.save": 5_000, "G3.save": 30_000}


def test_a_save_stands_beside_what_was_projected_for_v1() -> None:
    figures, cost = tables(a_record("G2"), markdown)
    [row] = [line for line in figures.splitlines() if "100 nodes: saved for the first time" in line]
    assert [cell.strip() for cell in row.strip("|").split("|")][2:] == [
        "20.0 ms",
        "40.0 ms",
        "",
        "0.50",
        "NO",
        "5,000 ms, 125 times as long",
    ]
    assert "| save 100 | 9 | 4 |" in cost


def test_few_repeats_are_said_to_be_doubtful() -> None:
    assert "Doubtful, as the sizes were small" in report(a_record("G1", sizes=asdict(QUICK)))
    assert "Doubtful" not in report(a_record("G1"))


def test_a_whole_record_becomes_the_page_and_any_other_is_refused(tmp_path: Path) -> None:
    page = tmp_path / PAGE
    page.write_text((PROJECT / "docs" / "performance" / PAGE).read_text())
    source = tmp_path / "measured.json"
    for partial in (a_record("G1", "G2", "G3"), a_record(*SIZES, sizes=asdict(QUICK))):
        partial.write(source)
        with pytest.raises(ValueError, match="says nothing of the budgets"):
            publish(source, tmp_path)
    a_record(*SIZES).write(source)
    publish(source, tmp_path)
    text = page.read_text()
    assert "10,000 nodes: validated in process, without configs" in text[text.index(BEGIN) : text.index(END)]
    assert "at commit abc" in text
    assert f"[{RECORD}]({RECORD})" in text
    assert read_record(tmp_path / RECORD) == a_record(*SIZES)


def test_the_graphs_are_right_and_no_two_of_their_expressions_alike() -> None:
    graph = graph_of(50)
    assert (len(graph.nodes), len(graph.edges), len(graph.modules)) == (50, 100, 50)
    other = with_expressions(graph)
    assert validate(graph, catalogue=catalogue()) == validate(other, catalogue=catalogue()) == []
    assert len({str(module.config) for module in other.modules}) == 50
    different = [a for a, b in zip(changed(graph, 1, every=10).nodes, graph.nodes, strict=True) if a != b]
    assert [node.node_id for node in different] == ["node-0", "node-10", "node-20", "node-30", "node-40"]
