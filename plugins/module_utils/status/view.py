"""Shows the facts and results to people: the same rows as text, in HTML, and the checks as lines or JUnit. Pure.

text() and page() print the rows of sections() and nothing else of the facts, so that they cannot differ.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..clock import between, second
from ..wording import printable
from .checks import Result, Summary
from .facts import Archive, Facts, Pod

LINES = 40  # one screen
WIDTH = 150
MARKS = {"ok": "√", "warn": "!", "fail": "×", "unknown": "?"}
NONE = "-"

Row = tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A table with a title; ``header`` is empty where each row says itself what it is."""

    title: str
    header: Row
    rows: tuple[Row, ...]


def age(earlier: object, now: str) -> str:
    """How long ago something was, in one figure."""
    seconds = between(earlier, now)
    if seconds == float("-inf"):
        return NONE
    return duration(seconds)


def duration(seconds: float) -> str:
    """A duration in its largest unit that is at least 2."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def sections(facts: Facts, results: Sequence[Result]) -> list[Section]:
    """The tables, in their order."""
    parts = [
        _cluster(facts),
        _nodes(facts),
        _application(facts),
        _pods(facts),
        _around(facts),
        _audit(facts),
        _wrong(results),
    ]
    return [_clean(part) for part in (*parts, _todo(results)) if part.rows]


def _clean(table: Section) -> Section:
    """Without what a terminal would take for a command: cells hold what other programs said."""
    return Section(table.title, table.header, tuple(tuple(map(printable, row)) for row in table.rows))


def _cluster(facts: Facts) -> Section:
    ready = sum(node.ready for node in facts.nodes)
    where = f" on {facts.api.server}" if facts.api.server else ""
    rows: list[Row] = [("site", f"{facts.application.namespace}/{facts.application.name}{where}")]
    if facts.nodes:
        rows.append(("nodes", f"{ready} of {len(facts.nodes)} ready"))
    days = [f"{one.where} {one.days:.0f} days" for one in facts.certificates if one.days is not None]
    if days:
        rows.append(("certificates", f"left: {', '.join(days)}"))
    return Section("Cluster", (), tuple(rows))


def _nodes(facts: Facts) -> Section:
    rows = tuple(
        (
            node.name,
            ("ready" if node.ready else "NOT READY") + ("" if node.schedulable else ", cordoned"),
            node.version or NONE,
            _percent(node.disk_percent),
            NONE if node.disk_free_mb is None else f"{node.disk_free_mb / 1024:.1f} GB",
        )
        for node in facts.nodes
    )
    return Section("Nodes", ("node", "state", "version", "disk", "free"), rows)


def _percent(value: int | None) -> str:
    return NONE if value is None else f"{value} %"


def _application(facts: Facts) -> Section:
    app = facts.application
    if not app.exists:
        return Section("Application", (), ())
    rollout = f"rolling out to {app.revision}" if app.rolling else f"revision {app.revision}"
    keel = {None: "Keel does not follow it", "never": "Keel FROZEN"}.get(facts.delivery.policy, "Keel follows it")
    updated = (
        f", updated it {age(facts.delivery.updated_at, facts.gathered_at)} ago" if facts.delivery.updated_at else ""
    )
    return Section(
        "Application",
        (),
        (
            ("image", f"{app.image} {app.digest or '(several builds, or not known)'}"),
            ("since", f"{app.since or NONE}, {app.ready} of {app.replicas} ready, {rollout}, {keel}{updated}"),
        ),
    )


def _pods(facts: Facts) -> Section:
    rows = tuple(
        (
            pod.name,
            _role(pod),
            pod.txid or NONE,
            _lag(pod),
            pod.identity,
            _volume(pod),
            str(pod.restarts),
            pod.node or NONE,
        )
        for pod in facts.pods
    )
    return Section("Pods", ("pod", "role", "TXID", "lag", "identity", "volume", "restarts", "node"), rows)


def _role(pod: Pod) -> str:
    if pod.role != "none":
        return pod.role if pod.ready else f"{pod.role}, not ready"
    return (
        "fenced" if pod.excused == "it is fenced" else "away" if pod.excused else "stopped" if pod.stopped else "mute"
    )


def _lag(pod: Pod) -> str:
    if pod.role != "replica":
        return NONE
    if pod.never_synced:
        return "never synced"
    if pod.sees_primary is None:
        return "no primary"
    lag = NONE if pod.lag_ms is None else f"{pod.lag_ms / 1000:.1f} s"
    return f"{lag}, {pod.behind} tx" if pod.behind else lag


def _volume(pod: Pod) -> str:
    if pod.volume_used_mb is None and pod.volume_percent is None:
        return NONE
    return f"{pod.volume_used_mb or 0} MB, {_percent(pod.volume_percent)}"


def _around(facts: Facts) -> Section:
    rows: list[Row] = []
    if facts.application.exists:
        rows += [("writes", _writes(facts)), ("backups", _backups(facts))]
    if facts.archive is not None:
        rows.append(("archive", _archive(facts.archive)))
    if facts.other_databases:
        rows.append(("no backup", f"{', '.join(facts.other_databases)} in /litefs"))
    wanted = [part for part in facts.parts if part.exists or (part.wanted and facts.nodes)]
    if wanted:
        rows.append(("parts", ", ".join(f"{part.name} {part.ready}/{part.replicas}" for part in wanted)))
    if facts.lock is not None:
        left = f"ends in {facts.lock.seconds_left} s" if facts.lock.seconds_left else "ended without being given back"
        rows.append(("lock", f"{facts.lock.operation} by {facts.lock.holder} since {facts.lock.since}, {left}"))
    rows += [("unfinished", f"{one.operation}, begun {one.begun} by {one.holder}") for one in facts.unfinished]
    return Section("Around it", (), tuple(rows))


def _writes(facts: Facts) -> str:
    if facts.write_path.error:
        return f"not tried: {facts.write_path.error}"
    bad = facts.write_path.reads + facts.write_path.problems
    return (
        f"NOT answered by the primary at {facts.write_path.address}"
        if bad
        else (f"answered by the primary, through {facts.write_path.address}")
    )


def _backups(facts: Facts) -> str:
    job, copy = facts.backup, facts.cluster_backup
    if not job.scheduled:
        said = "database not scheduled"
    else:
        when = "never" if job.age_hours is None else f"{duration(job.age_hours * 3600)} ago"
        said = f"database {when}, last job {job.last_result or 'not run'}{', SUSPENDED' if job.suspended else ''}"
    if job.kept_hours is not None:
        said += f", kept here {duration(job.kept_hours * 3600)} ago"
    cluster = "not known" if copy.age_hours is None else f"{duration(copy.age_hours * 3600)} ago"
    return f"{said}; cluster {cluster}"


def _archive(found: Archive) -> str:
    if not found.connected:
        return f"NOT connected: {found.error or NONE}"
    behind = NONE if found.behind_seconds is None else f"{found.behind_seconds:.0f} s"
    verified = f"verified to {found.verified or NONE} at {found.verified_at or NONE}"
    took = "" if found.drill_seconds is None else f" in {found.drill_seconds:g} s"
    drill = f"drill {found.drilled or NONE}{took}"
    return f"{verified}, received {found.received or NONE}, behind {behind}, gaps {found.gaps}, {drill}"


def _audit(facts: Facts) -> Section:
    rows = tuple(
        (second(line.time), line.holder, line.operation, line.event, line.result or NONE) for line in facts.audit
    )
    return Section("Last operations", ("time", "who", "operation", "event", "result"), rows)


def _wrong(results: Sequence[Result]) -> Section:
    """What is wrong, where the summary alone does not say it all."""
    bad = [one for one in results if one.mark in ("warn", "fail")]
    return Section("What is wrong", (), tuple((one.slug, one.cause) for one in bad if len(bad) > 1))


def _todo(results: Iterable[Result]) -> Section:
    commands: dict[str, str] = {}
    for one in sorted(results, key=lambda one: (not (one.grave and one.mark == "fail"), one.mark != "fail")):
        if one.mark in ("warn", "fail") and one.command:
            commands.setdefault(one.command, one.slug)
    return Section("Do this", (), tuple((command, f"# {slug}") for command, slug in commands.items()))


def text(facts: Facts, results: Sequence[Result], summary: Summary) -> str:
    """One screen: at most LINES lines."""
    tables = sections(facts, results)
    left = LINES - 1 - sum(2 if table.header else 1 for table in tables) - _pieces(summary.sentence)
    shown = _fit([len(table.rows) for table in tables], left + 1)
    lines = _wrapped(summary.sentence)
    for table, count in zip(tables, shown, strict=True):
        lines.append(f"{table.title}:")
        kept = table.rows if count == len(table.rows) else table.rows[: max(count - 1, 0)]
        lines += _aligned([table.header, *kept] if table.header else kept)
        if len(kept) < len(table.rows):
            lines.append(f"  ... {len(table.rows) - len(kept)} more, see status_output=json")
    return "\n".join(line.rstrip() for line in lines[:LINES]) + "\n"


def _fit(sizes: Sequence[int], room: int) -> list[int]:
    """How many rows of each table are shown, so that all together have room: the longest give way."""
    shown = list(sizes)
    while sum(shown) > room and max(shown, default=0) > 1:
        shown[shown.index(max(shown))] -= 1
    return shown


def _wrapped(sentence: str) -> list[str]:
    import textwrap

    return textwrap.wrap(sentence, WIDTH)[:4] or [""]


def _pieces(sentence: str) -> int:
    return len(_wrapped(sentence))


def _aligned(rows: Sequence[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def document(facts: Facts, results: Sequence[Result], summary: Summary) -> dict[str, Any]:
    """The JSON: docs/status.md describes it."""
    return {"summary": asdict(summary), "facts": asdict(facts), "checks": [asdict(one) for one in results]}


def page(template: str, facts: Facts, results: Sequence[Result], summary: Summary) -> str:
    """The HTML: a Jinja template, in which everything that is put in is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    shown: Mapping[str, Any] = {
        "facts": facts,
        "results": results,
        "summary": summary,
        "sections": sections(facts, results),
        "marks": MARKS,
    }
    return environment.from_string(template).render(shown) + "\n"


def lines(results: Sequence[Result], summary: Summary) -> str:
    """The checks for check.yml: one line each, its mark first; below one that is not well, why and what mends it."""
    said: list[str] = []
    group = ""
    for one in sorted(results, key=_order(results)):
        if one.group != group:
            group = one.group
            said.append(f"{group}:")
        said.append(
            f"  {MARKS[one.mark]} {one.asks} ({one.slug})" + (f": {one.cause}" if one.mark == "unknown" else "")
        )
        if one.mark in ("warn", "fail"):
            said += [f"      {label}: {words}" for label, words in _told(one) if words]
    return "\n".join([*said, "", summary.sentence]) + "\n"


def _told(one: Result) -> list[tuple[str, str]]:
    return [("why", one.cause), ("do this", one.command), ("more", one.page)]


def _order(results: Sequence[Result]) -> Callable[[Result], int]:
    """By group, in the order in which the groups come first."""
    known = list(dict.fromkeys(one.group for one in results))
    return lambda one: known.index(one.group)


def junit(results: Sequence[Result]) -> str:
    """The checks as JUnit: a suite for each group; a warning is a failure of its own type."""
    root = ET.Element("testsuites", name="abaci.infra.check")
    for group in dict.fromkeys(one.group for one in results):
        mine = [one for one in results if one.group == group]
        bad = [one for one in mine if one.mark in ("warn", "fail")]
        unknown = [one for one in mine if one.mark == "unknown"]
        counts = {"tests": str(len(mine)), "failures": str(len(bad)), "skipped": str(len(unknown))}
        suite = ET.SubElement(root, "testsuite", {"name": group, **counts})
        for one in mine:
            case = ET.SubElement(suite, "testcase", name=one.slug, classname=group)
            if one in bad:
                failure = ET.SubElement(case, "failure", message=one.cause, type=one.mark)
                failure.text = f"{one.command}\n{one.page}"
            elif one in unknown:
                ET.SubElement(case, "skipped", message=one.cause)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
