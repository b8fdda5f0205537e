"""Report on methods on recorded rollouts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fireopd.analysis.compare.gradients import Alignments
from fireopd.analysis.compare.method_statistics import Agreement, GroupShare, MethodStatistics, Recording
from fireopd.analysis.compare.recorded_plots import histogram, plots
from fireopd.analysis.compare.report import Report
from fireopd.analysis.provenance import versions
from fireopd.analysis.tables import Cell, Table
from fireopd.training.recordings import recorded_student

__all__ = ["recorded_report"]

ANOTHER_STUDENT = 0.01
"""Mean log-probability difference, nats per token, from which a student counts as another one than recorded."""


def recorded_report(
    recordings: Sequence[Recording],
    statistics: Mapping[str, MethodStatistics],
    agreements: Sequence[Agreement],
    gradients: Alignments | None,
    student: str | None,
) -> Report:
    """Return the report on methods on recorded rollouts.

    Args:
        recordings: recordings that the methods were applied to.
        statistics: statistics by name of the method.
        agreements: agreement of each pair of methods.
        gradients: gradient alignment of each pair of methods; None without a student.
        student: name of the student, if any.
    """
    batches = [recording.batch for recording in recordings]
    trajectories, tokens = sum(len(b.teachers) for b in batches), sum(int(b.lengths.sum()) for b in batches)
    teachers = sorted({name for batch in batches for name in batch.teachers})
    facts = {
        "files": ", ".join(f"{recording.path} (step {recording.batch.policy_version})" for recording in recordings),
        "rollouts": f"{trajectories} trajectories, {tokens} response tokens, teachers {', '.join(teachers)}",
        "methods": ", ".join(statistics),
        "versions": versions(),
    }
    if gradients is not None:
        facts["student"] = (
            f"{student}, mean difference from the recorded log-probabilities {gradients.student_gap:.2g} nats per token"
        )
    warnings = _student_warnings(recordings, gradients, student)
    facts |= {"warning": " ".join(warnings)} if warnings else {}
    return Report(
        title=f"{len(statistics)} methods on the same rollouts",
        lead="Every method was applied to the same recorded rollouts, batch by batch. No training took place.",
        facts=facts,
        tables=[_overview(statistics), *_pairs(agreements, gradients), *_groups(statistics)],
        plots=plots(statistics, agreements, gradients),
        data=_data(statistics, agreements, gradients),
    )


def _student_warnings(recordings: Sequence[Recording], gradients: Alignments | None, student: str | None) -> list[str]:
    """Return warnings about recordings of several students, and of another student than that of the gradients."""
    named = {recorded_student(recording.path) for recording in recordings}
    recorded = ", ".join(sorted(name for name in named if name is not None)) or "unknown"
    found = [f"The files were recorded with different students: {recorded}."] if len(named) > 1 else []
    if gradients is not None and gradients.student_gap >= ANOTHER_STUDENT:
        gap = f"{gradients.student_gap:.2g} nats per token"
        found.append(f"The gradients are those of {student}, not of the recorded student ({recorded}): {gap} apart.")
    return found


def _overview(statistics: Mapping[str, MethodStatistics]) -> Table:
    columns = ["method", "keep ratio", "kept tokens", "effective share", "smallest weight", "largest weight"]
    rows: list[list[Cell]] = []
    for name, found in statistics.items():
        ends = (found.weights.min().item(), found.weights.max().item()) if len(found.weights) else (None, None)
        rows.append([name, found.keep_ratio, found.kept_tokens, found.effective_share, *ends])
    note = "Effective share: effective sample size of the weights over the number of kept tokens; 1 for equal weights."
    return Table("Overview", columns, rows, note)


def _pairs(agreements: Sequence[Agreement], gradients: Alignments | None) -> list[Table]:
    if not agreements:
        return []
    alignments = [[pair.cosine, pair.norm_ratio] for pair in gradients.pairs] if gradients else [[] for _ in agreements]
    names = [[pair.first, pair.second, pair.keep_overlap, pair.rank_correlation] for pair in agreements]
    more = ["gradient cosine", "norm, first over second"] if gradients else []
    rows: list[list[Cell]] = [[*own, *aligned] for own, aligned in zip(names, alignments, strict=True)]
    note = (
        "Keep overlap: Jaccard index of the kept trajectories. Rank correlation: Spearman correlation of the weights of"
    )
    note += " tokens that both keep; undefined if all weights of one method are equal."
    if gradients:
        note += (
            " Cosine and norm: loss gradients with respect to the student, mean over files. Norm above 1: the first"
            " method has the larger gradient."
        )
    columns = ["first method", "second method", "keep overlap", "rank correlation", *more]
    return [Table("Similarity of methods", columns, rows, note)]


def _groups(statistics: Mapping[str, MethodStatistics]) -> list[Table]:
    by_teacher = {name: found.by_teacher for name, found in statistics.items()}
    by_length = {name: found.by_length for name, found in statistics.items()}
    return [_shares("By teacher", "teacher", by_teacher), _shares("By response length", "tokens", by_length)]


def _shares(title: str, group: str, shares: Mapping[str, Mapping[str, GroupShare]]) -> Table:
    rows: list[list[Cell]] = []
    for method, groups in shares.items():
        rows += [[method, name, share.kept, share.tokens, share.weight] for name, share in groups.items()]
    columns = ["method", group, "kept", "share of tokens", "share of weight"]
    note = (
        "Kept: fraction of the group's trajectories. Shares: fractions of all response tokens and of the total weight."
    )
    return Table(title, columns, rows, note)


def _data(
    statistics: Mapping[str, MethodStatistics], agreements: Sequence[Agreement], gradients: Alignments | None
) -> dict[str, Any]:
    methods = {}
    for name, found in statistics.items():
        counts, edges = histogram(statistics, name)
        described = {
            key: value for key, value in vars(found).items() if key not in ("weights", "by_teacher", "by_length")
        }
        described["histogram"] = {"edges": edges.tolist(), "counts": counts.tolist()}
        described["by_teacher"] = {key: asdict(share) for key, share in found.by_teacher.items()}
        described["by_length"] = {key: asdict(share) for key, share in found.by_length.items()}
        methods[name] = described
    return {
        "kind": "replays",
        "methods": methods,
        "pairs": [asdict(agreement) for agreement in agreements],
        "gradients": asdict(gradients) if gradients else None,
    }
