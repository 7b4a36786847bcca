"""A session as tables: figures with ratios, settings, sizes, caveats; for the terminal and for a page of Markdown."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.results import FIGURES, Cell, Session, cell
from benchmarks.publish import WIDTH
from benchmarks.table import BUSY, markdown, number, terminal


def names(session: Session) -> list[str]:
    """Those that were measured, ours first."""
    present = {each.contender for each in session.results}
    return [name for name in CONTENDERS if name in present]


def figures(session: Session, *, bold: bool = False) -> tuple[Sequence[str], list[list[str]]]:
    """Headings and rows. In brackets how many times better ours is; where the peer is better it is marked."""
    contenders = names(session)
    headings = ["", "", *(CONTENDERS[name].title for name in contenders)]
    rows = []
    for figure in FIGURES:
        cells = [cell(session, figure, name) for name in contenders]
        if any(each is not None for each in cells):
            rows.append([figure.workload, figure.what, *(_text(each, figure.unit, bold=bold) for each in cells)])
    return headings, rows


def settings(session: Session) -> list[list[str]]:
    """By contender: versions, settings, sizes."""
    rows = []
    for name in names(session):
        lines = [each.line for each in session.results if each.contender == name and each.line is not None]
        if not lines:
            continue
        versions = ", ".join(f"{package} {version}" for package, version in lines[0].versions.items())
        chosen = "; ".join(f"{what}: {value}" for what, value in lines[0].extra.get("settings", {}).items())
        chosen = chosen or lines[0].note
        sizes = {each.workload: each.size for each in session.results if each.contender == name}
        sized = ", ".join(f"{workload} {size:,}" for workload, size in sorted(sizes.items()))
        rows.append([CONTENDERS[name].title, versions, chosen, sized])
    return rows


def spread(session: Session) -> list[list[str]]:
    """The least and the most of the rounds, by figure and contender."""
    rows = []
    for figure in FIGURES:
        for name in names(session):
            found = cell(session, figure, name)
            if found is not None and found.rounds > 1:
                least, most = (number(value, figure.unit) for value in (found.least, found.most))
                rows.append([figure.workload, figure.what, CONTENDERS[name].title, least, most, str(found.rounds)])
    return rows


def failures(session: Session) -> list[str]:
    """What went wrong, one line each."""
    return [f"round {each.round}: {each.error}" for each in session.results if each.error]


def missing(session: Session) -> list[str]:
    """What was not measured in every round, one line for all of it."""
    lacking = []
    for name, contender in CONTENDERS.items():
        measured = Counter(each.workload for each in session.results if each.contender == name and each.line)
        workloads = [workload for workload in contender.sizes if measured[workload] < session.settings["rounds"]]
        lacking += [f"{contender.title} {' '.join(workloads)}"] if workloads else []
    return [f"Not measured in every round: {'; '.join(lacking)}."] if lacking else []


def doubts(session: Session) -> list[str]:
    """What makes the figures doubtful, one line each."""
    busiest = max((each.others for each in session.results), default=0.0)
    lines = [f"Doubtful: between turns others used up to {busiest:.0%} of the machine."] if busiest > BUSY else []
    if session.machine["filesystem"] == "tmpfs":
        lines.append("Doubtful: the data folder is in memory, where fsync costs nothing.")
    return lines


def for_terminal(session: Session) -> str:
    """Figures, what failed, and what makes them doubtful."""
    return "\n".join([terminal(*figures(session)), *failures(session), *doubts(session)])


def for_page(session: Session) -> str:
    """Everything that a page says of one session, as Markdown."""
    caveats = "\n".join(f"- **{CONTENDERS[name].title}.** {CONTENDERS[name].caveat}" for name in names(session))
    better = _where_better(session)
    parts = [
        _origin(session),
        markdown(*figures(session, bold=True)),
        "In brackets: how many times better Valkyr is. **Bold**: there the peer is better.",
        "\n".join(better) if better else "In none of these figures was a peer better.",
        "What is not comparable:",
        caveats,
        markdown(("", "Versions", "Settings", "Sizes"), settings(session)),
    ]
    rounds = spread(session)
    if rounds:
        parts.append(markdown(("", "", "", "Least", "Most", "Rounds"), rounds))
    parts += [*(f"Failed: {each}" for each in failures(session)), *missing(session), *doubts(session)]
    return "\n\n".join(parts)


def _origin(session: Session) -> str:
    machine, postgres = session.machine, session.settings["postgres"]
    sentences = (
        f"Measured on {session.began[:10]} at commit {session.versions['commit']},",
        f"rounds: {session.settings['rounds']}.",
        f"Machine: {machine['cores']} cores of {machine['cpu']}, {machine['memory_mib'] // 1024} GiB,",
        f"Linux {machine['kernel']}, {machine['filesystem']}; 8 KiB are durable after {machine['fsync_us']:.0f} us.",
        f"PostgreSQL {postgres['server_version']}, fsync {postgres['fsync']}, synchronous_commit",
        f"{postgres['synchronous_commit']}, full_page_writes {postgres['full_page_writes']},",
        f"shared_buffers {postgres['shared_buffers']}. Raw figures: [peers.json](peers.json).",
    )
    return textwrap.fill(" ".join(sentences), WIDTH)


def _where_better(session: Session) -> list[str]:
    lines = []
    for figure in FIGURES:
        for name in names(session):
            found = cell(session, figure, name)
            if found is not None and found.ratio is not None and found.ratio < 1:
                what = f"{figure.workload}, {figure.what}"
                lines.append(f"- {CONTENDERS[name].title} is {_times(1 / found.ratio)} times better in {what}.")
    return lines


def _times(ratio: float) -> str:
    """Two digits."""
    return f"{float(f'{ratio:.2g}'):,g}"


def _text(found: Cell | None, unit: str, *, bold: bool) -> str:
    if found is None:
        return "-"
    text = number(found.median, unit)
    if found.ratio is None:
        return text
    text = f"{text} ({_times(found.ratio)}x)"
    if found.ratio >= 1:
        return text
    return f"**{text}**" if bold else f"{text} !"
