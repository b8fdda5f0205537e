"""Old module paths, importable until version 0.3 with a deprecation warning (`FutureWarning`, so that users of YAML files see it).

Class paths in YAML files and imports of plug-ins that were written for version 0.1 keep working: an old module is an
alias that looks each name up in its new place.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MODULES", "NAMES", "install"]

MODULES = {
    "batching": "training.micro_batches",
    "callbacks.interrupts": "training.interrupts",
    "callbacks.weight_sync": "training.weight_sync",
    "checkpoints": "training.checkpoints",
    "code_blocks": "verifiers.code_blocks",
    "collectives": "distributed.collectives",
    "commands.check": "cli.commands.check",
    "commands.compare": "cli.commands.compare",
    "commands.evaluate": "cli.commands.evaluate",
    "commands.export": "cli.commands.export",
    "commands.fit": "cli.commands.fit",
    "commands.method_options": "cli.method_options",
    "commands.new": "cli.commands.new",
    "commands.overlays": "cli.method_files",
    "commands.parsers": "cli.parser",
    "commands.plugins": "cli.commands.plugins",
    "commands.replay": "cli.commands.replay",
    "commands.serve": "cli.commands.serve",
    "commands.view": "cli.commands.view",
    "comparisons": "analysis.compare",
    "comparisons.gradients": "analysis.compare.gradients",
    "comparisons.plans": "analysis.compare.planned_run",
    "comparisons.plots": "analysis.compare.plots",
    "comparisons.replay_plots": "analysis.compare.recorded_plots",
    "comparisons.replay_reports": "analysis.compare.recorded_report",
    "comparisons.replays": "analysis.compare.method_statistics",
    "comparisons.reports": "analysis.compare.report",
    "comparisons.results": "analysis.compare.paired_differences",
    "comparisons.runs": "analysis.compare.run_results",
    "comparisons.tables": "analysis.tables",
    "comparisons.training_plots": "analysis.compare.training_plots",
    "comparisons.training_reports": "analysis.compare.training_report",
    "comparisons.trainings": "analysis.compare.run_queue",
    "contexts": "teachers.context",
    "contracts": "types.contracts",
    "data": "training.data",
    "diagnostics": "training.step_metrics",
    "distributions": "models.distributions",
    "engines.attentions": "engines.hf.attention",
    "engines.decoding": "engines.hf.decoder",
    "engines.huggingface": "engines.hf.engine",
    "engines.sampling": "engines.hf.sampling",
    "engines.servers": "engines.vllm.client",
    "engines.slots": "engines.hf.slot_cache",
    "engines.vllm": "engines.vllm.engine",
    "engines.vllm_servers": "engines.vllm.server_engine",
    "engines.vllm_workers": "engines.vllm.worker",
    "engines.weight_transfers": "engines.vllm.weight_transfer",
    "environments": "analysis.provenance",
    "estimators": "verifiers.pass_at_k",
    "evaluations": "analysis.evaluate",
    "evaluations.benchmarks": "analysis.evaluate.benchmarks",
    "evaluations.exports": "analysis.evaluate.export_formats",
    "evaluations.folders": "analysis.evaluate.output_folder",
    "evaluations.records": "analysis.evaluate.records",
    "evaluations.reports": "analysis.evaluate.report",
    "evaluations.runs": "analysis.evaluate.sampling",
    "evaluations.summaries": "analysis.evaluate.summary",
    "faults": "training.skipped_steps",
    "files": "atomic_files",
    "filters.compositions": "filters.composition",
    "filters.lengths": "filters.length",
    "filters.likelihoods": "filters.teacher_likelihood",
    "filters.margins": "filters.margin",
    "filters.verdicts": "filters.reward",
    "likelihoods": "models.chunked_logprobs",
    "loggers": "training.csv_logger",
    "memory": "training.memory_estimate",
    "methods": "method",
    "metrics": "training.validation_metrics",
    "module": "training.module",
    "objectives.divergences": "objectives.divergence",
    "objectives.gates": "objectives.gated_kl",
    "objectives.log_ratios": "objectives.log_ratio",
    "objectives.references": "objectives.base_model",
    "objectives.supports": "objectives.topk_divergence",
    "objectives.verdicts": "objectives.reward",
    "outlines": "training.run_summary",
    "overlaps": "training.background_rollout",
    "plugins": "cli.entry_points",
    "preflight": "training.checks",
    "prompts.mixtures": "prompts.mixture",
    "prompts.tables": "prompts.tabular",
    "randomness": "types.row_uniforms",
    "readings": "training.score_batch",
    "recordings": "analysis.recordings",
    "rollouts": "engines.rollout",
    "scoring": "models.scorer",
    "sharding": "distributed.fsdp",
    "shards": "distributed.sharded_checkpoints",
    "signals": "types.signals",
    "states": "types.strategy_state",
    "statistics": "analysis.bootstrap",
    "stopwatches": "training.stopwatch",
    "supervision": "training.update_targets",
    "symptoms": "callbacks.failure_detectors",
    "targets": "types.targets",
    "tasks": "prompts.tiny_tasks",
    "testing.answers": "testing.answer_checks",
    "testing.batches": "testing.example_batches",
    "testing.divergences": "testing.divergence_checks",
    "testing.gradients": "testing.expected_gradients",
    "testing.invariances": "testing.invariance_checks",
    "testing.objects": "testing.settings_checks",
    "testing.subjects": "testing.subject",
    "tokenization": "prompts.tokenization",
    "verifiers.frames": "verifiers.workers.json_messages",
    "verifiers.math_worker": "verifiers.workers.math_worker",
    "verifiers.names": "verifiers.required_names",
    "verifiers.reasoning_gym_worker": "verifiers.workers.reasoning_gym_worker",
    "verifiers.sandbox.linux": "verifiers.sandbox.syscalls",
    "verifiers.sandbox.paths": "verifiers.sandbox.readable_paths",
    "verifiers.sandbox.programs": "verifiers.sandbox.program_runner",
    "verifiers.sandbox.testers": "verifiers.sandbox.test_runner",
    "verifiers.sandbox.values": "verifiers.sandbox.value_codec",
    "verifiers.services": "verifiers.workers.worker_loop",
    "verifiers.worked": "verifiers.workers.worker_verifier",
    "verifiers.workers": "verifiers.workers.pool",
    "views": "analysis.view",
    "views.pages": "analysis.view.page",
    "views.pieces": "analysis.view.token_texts",
    "views.quantities": "analysis.view.quantities",
    "views.trajectories": "analysis.view.trajectory_view",
    "weighters.compositions": "weighters.composition",
    "weighters.entropies": "weighters.entropy",
    "weighters.likelihoods": "weighters.teacher_likelihood",
    "weighters.overlaps": "weighters.topk_overlap",
    "weighters.positions": "weighters.position",
    "weighters.selections": "weighters.token_selection",
    "weights": "models.weight_stream",
}
"""Old module to new module, below `fireopd`."""

NAMES = {
    "batching.MICRO_BATCH_TOKENS": "models.token_budget",
    "batching.by_token_budget": "models.token_budget",
    "collectives.gather_batch": "distributed.gather",
    "data.RolloutLoader": "training.rollout_loader",
    "data.VALIDATION_SEED": "training.rollout_loader",
    "distributions.kl": "reductions",
    "extras.import_extra": "errors",
    "signals.ContractError": "types.strategy",
    "signals.Strategy": "types.strategy",
    "signals.UndeclaredSignalError": "types.strategy",
    "signals.union": "types.strategy",
    "statistics.average_ranks": "analysis.rank_correlation",
    "statistics.rank_correlation": "analysis.rank_correlation",
    "types.prompts.Response": "types.responses",
    "types.prompts.Sampling": "types.responses",
}
"""Names that left their module, to the new module."""


class _Alias(ModuleType):
    """Old module."""

    def __getattr__(self, name: str) -> Any:
        """Return a name from its new module.

        Raises:
            AttributeError: if the new module has no such name.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        old = self.__name__.removeprefix("fireopd.")
        place = f"fireopd.{NAMES.get(f'{old}.{name}', MODULES[old])}"
        value = getattr(import_module(place), name)
        message = f"{self.__name__}.{name} has moved to {place}.{name}; the old path works until version 0.3"
        warnings.warn(message, FutureWarning, stacklevel=2)
        return value


class _Finder(MetaPathFinder, Loader):
    """Import hook for old modules; asked last, after the files."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Return a spec for an old module."""
        old = fullname.removeprefix("fireopd.")
        if not fullname.startswith("fireopd.") or old not in MODULES:
            return None
        has_submodules = any(name.startswith(f"{old}.") for name in MODULES)
        return ModuleSpec(fullname, self, is_package=has_submodules)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the alias."""
        return _Alias(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave the alias empty."""


def install() -> None:
    """Add the import hook, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
