"""Page of a run: what ran, results, charts by question, decisions of the filter, weights, costs, trajectories."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from fireopd.analysis.chapters import charts_by_chapter
from fireopd.analysis.page import Page, Section, tables
from fireopd.analysis.report import run_tables
from fireopd.analysis.report.run_charts import chart
from fireopd.analysis.report.run_files import RunFiles
from fireopd.analysis.runs import STRATEGIES
from fireopd.analysis.tables import Table
from fireopd.analysis.view import TrajectoryList
from fireopd.types.signals import ENTROPIES

__all__ = ["run_report"]

MOST_TOKENS = 60_000
"""Maximum number of response tokens of the trajectories, about two megabytes."""
PACKAGES = ("fireopd", "torch", "transformers", "lightning", "vllm")
"""Packages whose versions are facts of a run."""


def run_report(folder: Path) -> Page:
    """Return the report of the run in a folder `version_<n>`; what its files lack is left out."""
    run = RunFiles.read(folder)
    shown = TrajectoryList.read(run.pages, MOST_TOKENS) if run.pages else None
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    sections = [Section("", style), tables([run_tables.results(run), run_tables.warnings(run)])]
    sections += list(_chapters(run, shown))
    sections.append(
        _details("Configuration", f'<pre tabindex="0" aria-label="configuration">{escape(run.config)}</pre>')
    )
    if shown is None:
        hint = "none; the callback Trajectories writes them, and fireopd view shows recorded rollouts."
        return Page(f"Run {folder}", _facts(run), [*sections, Section(f"<h2>Trajectories</h2>\n<p>{hint}</p>")])
    return Page(f"Run {folder}", _facts(run), [*sections, Section("<h2>Trajectories</h2>"), shown.section()])


def _chapters(run: RunFiles, shown: TrajectoryList | None) -> Iterator[Section]:
    """Yield the charts of each question, with the tables that belong to it."""
    more: dict[str, list[Table]] = {"4": [run_tables.costs(run)]}
    if shown is not None:
        more |= {"2": [run_tables.decisions(shown)], "3": [run_tables.tokens(shown)]}
    for title, charts in charts_by_chapter(run.teachers, run.tasks, ENTROPIES | {"rewards"}).items():
        found = {name: {tag: run.curves[tag] for tag in tags if tag in run.curves} for name, tags in charts.items()}
        figures = [_figure(name, curves) for name, curves in found.items() if curves]
        if not figures:
            continue
        number, _, question = title.partition(" ")
        yield Section(f'<h2>{escape(question)}</h2>\n<div class="charts">{"".join(figures)}</div>')
        yield from _smaller(more.get(number, []))
        curves = {tag: curve for own in found.values() for tag, curve in own.items()}
        table = run_tables.metrics(curves, f"Metrics: {question}")
        yield Section(_details("Numbers", table.to_html(level=3)).html, script=tables([]).script)


def _smaller(given: list[Table]) -> Iterator[Section]:
    yield from (Section(table.to_html(level=3), script=tables([]).script) for table in given if table.rows)


def _figure(title: str, curves: Mapping[str, Any]) -> str:
    plot = chart(title, curves)
    caption = f"{escape(title)}<span>{escape(plot.caption)}</span>"
    return f"<figure><figcaption>{caption}</figcaption>{plot.to_svg()}</figure>"


def _details(title: str, html: str) -> Section:
    return Section(f"<details><summary>{escape(title)}</summary>{html}</details>")


def _facts(run: RunFiles) -> dict[str, str]:
    """Return what ran: state, method, models, prompts, sizes, costs, versions, command."""
    model, data, made = run.section("model"), run.section("data"), run.environment
    teachers = model.get("teachers")
    named = teachers.items() if isinstance(teachers, dict) else ()
    facts = {
        "state": f"{run.status.state}, {run.status.steps} steps",
        "method": " · ".join(_describe(model.get(name)) for name in STRATEGIES),
        "student": _describe(model.get("student")),
        "teachers": "; ".join(f"{name}: {_describe(teacher)}" for name, teacher in named),
        "prompts": _describe(data.get("prompts")),
        "batch": f"{data.get('batch_size')} prompts x {data.get('responses_per_prompt')} responses",
        "engine": _describe(data.get("engine")),
        "seed": str(run.settings.get("seed_everything", "")),
        "resumed from": str(run.settings.get("ckpt_path") or ""),
        "cost": _cost(run),
        "machine": _machine(made),
        "versions": ", ".join(f"{k} {v}" for k, v in made.get("packages", {}).items() if k in PACKAGES),
        "revision": _revision(made.get("git")),
        "command": " ".join(map(str, made.get("command", ()))),
    }
    return {name: value for name, value in facts.items() if value}


def _describe(part: Any) -> str:
    """Return a setting as text: a class with its arguments, without those that are null."""
    if not isinstance(part, dict) or "class_path" not in part:
        return "" if part is None else str(part)
    arguments = part.get("init_args") or {}
    text = ", ".join(f"{name}={_describe(value)}" for name, value in arguments.items() if value is not None)
    name = str(part["class_path"]).rpartition(".")[2]
    return f"{name}({text})" if text else name


def _cost(run: RunFiles) -> str:
    """Return response tokens, seconds and process hours of the steps."""
    parts = [curve for tag, curve in run.curves.items() if tag.startswith("time/")]
    speed = run.curves.get("train/tokens_per_s", {})
    seconds = {step: sum(curve.get(step, 0.0) for curve in parts) for step in speed}
    tokens, total = sum(speed[step] * seconds[step] for step in speed), sum(seconds.values())
    if not total:
        return ""
    whole, processes = run.summary.get("seconds"), run.environment.get("processes", 1)
    hours = f"{(whole or total) / 3600:.2g} hours of {processes} process{'es' if processes > 1 else ''}"
    validation = f", {whole:.0f} s with validation" if whole else ""
    return f"{tokens:,.0f} response tokens in {total:,.0f} s of steps{validation}; {hours}"


def _machine(made: Mapping[str, Any]) -> str:
    devices = made.get("devices") or []
    names = [f"{devices.count(name)} of {name}" for name in dict.fromkeys(devices)]
    names += [f"{made['cpus']} CPU cores", str(made.get("platform", ""))] if "cpus" in made else []
    return ", ".join(names)


def _revision(git: Any) -> str:
    return f"{git['revision'][:12]}{', with changes' if git.get('changed') else ''}" if isinstance(git, dict) else ""
