"""The report on what methods make of recorded rollouts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fireopd.analysis.compare.gradients import Alignments
from fireopd.analysis.compare.replay_plots import histogram, plots
from fireopd.analysis.compare.replays import Agreement, Portrait, Recording, Share
from fireopd.analysis.compare.report import Report
from fireopd.analysis.provenance import versions
from fireopd.analysis.tables import Cell, Table

ANOTHER_STUDENT = 0.01
"""Mean difference of log-probabilities, nats, from which a student is not the one that was recorded."""


def replay_report(
    recordings: Sequence[Recording],
    portraits: Mapping[str, Portrait],
    alike: Sequence[Agreement],
    gradients: Alignments | None,
    student: str | None,
) -> Report:
    """Return the report.

    Args:
        recordings: what the methods were asked about.
        portraits: what each makes of them, by name.
        alike: of each two methods.
        gradients: likewise, where a student was given.
        student: its name.
    """
    batches = [recording.batch for recording in recordings]
    trajectories, tokens = sum(len(b.teachers) for b in batches), sum(int(b.lengths.sum()) for b in batches)
    teachers = sorted({name for batch in batches for name in batch.teachers})
    facts = {
        "files": ", ".join(f"{recording.path} (step {recording.batch.policy_version})" for recording in recordings),
        "rollouts": f"{trajectories} trajectories, {tokens} response tokens, teachers {', '.join(teachers)}",
        "methods": ", ".join(portraits),
        "versions": versions(),
    }
    if gradients is not None:
        facts["student"] = f"{student}, {gradients.student_gap:.2g} nats a token away from the recorded one"
        facts["student"] += "" if gradients.student_gap < ANOTHER_STUDENT else ": not the student that was recorded"
    return Report(
        title=f"{len(portraits)} methods on the same rollouts",
        lead="Every method was asked about the same recorded rollouts, batch by batch; nothing was trained.",
        facts=facts,
        tables=[_overview(portraits), *_pairs(alike, gradients), *_groups(portraits)],
        plots=plots(portraits, alike, gradients),
        data=_data(portraits, alike, gradients),
    )


def _overview(portraits: Mapping[str, Portrait]) -> Table:
    columns = ["method", "keep ratio", "kept tokens", "effective share", "smallest weight", "largest weight"]
    rows: list[list[Cell]] = []
    for name, of in portraits.items():
        ends = (of.weights.min().item(), of.weights.max().item()) if len(of.weights) else (None, None)
        rows.append([name, of.keep_ratio, of.kept_tokens, of.effective_share, *ends])
    note = "Effective share: effective sample size of the weights over the number of kept tokens, 1 for equal weights."
    return Table("What each method makes of them", columns, rows, note)


def _pairs(alike: Sequence[Agreement], gradients: Alignments | None) -> list[Table]:
    if not alike:
        return []
    pushes = [[pair.cosine, pair.norm_ratio] for pair in gradients.pairs] if gradients else [[] for _ in alike]
    words: list[list[Cell]] = [[of.first, of.second, of.keep_overlap, of.rank_correlation] for of in alike]
    more = ["gradient cosine", "norm ratio"] if gradients else []
    rows: list[list[Cell]] = [[*of, *push] for of, push in zip(words, pushes, strict=True)]
    note = "Keep overlap: kept by both over kept by either. Rank correlation (Spearman): of the weights of tokens that"
    note += " both keep; none where one weighs all alike."
    if gradients:
        note += " Cosine and norm ratio, first over second: of the loss's gradient in the student, mean over files."
    columns = ["method", "and", "keep overlap", "rank correlation", *more]
    return [Table("How alike they are", columns, rows, note)]


def _groups(portraits: Mapping[str, Portrait]) -> list[Table]:
    by_teacher = {name: portrait.by_teacher for name, portrait in portraits.items()}
    by_length = {name: portrait.by_length for name, portrait in portraits.items()}
    return [_shares("By teacher", "teacher", by_teacher), _shares("By length of the response", "tokens", by_length)]


def _shares(title: str, group: str, shares: Mapping[str, Mapping[str, Share]]) -> Table:
    rows: list[list[Cell]] = []
    for method, groups in shares.items():
        rows += [[method, name, of.kept, of.tokens, of.weight] for name, of in groups.items()]
    columns = ["method", group, "kept", "share of tokens", "share of weight"]
    note = "Kept: share of the group's trajectories. The last two: the group's part of all."
    return Table(title, columns, rows, note)


def _data(
    portraits: Mapping[str, Portrait], alike: Sequence[Agreement], gradients: Alignments | None
) -> dict[str, Any]:
    methods = {}
    for name, portrait in portraits.items():
        counts, edges = histogram(portraits, name)
        described = {
            key: value for key, value in vars(portrait).items() if key not in ("weights", "by_teacher", "by_length")
        }
        described["histogram"] = {"edges": edges.tolist(), "counts": counts.tolist()}
        described["by_teacher"] = {key: asdict(share) for key, share in portrait.by_teacher.items()}
        described["by_length"] = {key: asdict(share) for key, share in portrait.by_length.items()}
        methods[name] = described
    return {
        "kind": "replays",
        "methods": methods,
        "pairs": [asdict(agreement) for agreement in alike],
        "gradients": asdict(gradients) if gradients else None,
    }
