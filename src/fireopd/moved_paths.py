"""Old module paths, importable until version 0.3 with a deprecation warning.

Class paths in YAML files and imports of plug-ins written for version 0.1 keep working: an old module is an alias that
looks up each name in its new place. The warning is a `FutureWarning`, which Python also shows to users of YAML files.
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
    "analysis.recordings": "training.recordings",
    "batching": "training.micro_batches",
    "callbacks.run_record": "callbacks.run_environment",
    "callbacks.run_folder": "training.run_folder",
    "callbacks.tensorboard_curves": "callbacks.curves",
    "callbacks.trajectories": "callbacks.trajectory_display",
    "callbacks.interrupts": "training.interrupts",
    "callbacks.weight_sync": "training.weight_sync",
    "checkpoints": "training.checkpoint_files",
    "collectives": "distributed.collectives",
    "commands": "cli.commands",
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
    "engines.attentions": "models.grouped_query_attention",
    "engines.hf.attention": "models.grouped_query_attention",
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
    "extras": "errors",
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
    "preflight": "training.run_checks",
    "prompts.mixtures": "prompts.mixture",
    "prompts.tables": "prompts.tabular",
    "randomness": "types.row_uniforms",
    "readings": "training.score_batch",
    "recordings": "training.recordings",
    "rollouts": "engines.rollout",
    "scoring": "models.scorer",
    "sharding": "distributed.fsdp",
    "signals": "types.signals",
    "states": "types.strategy_state",
    "statistics": "analysis.bootstrap",
    "stopwatches": "training.stopwatch",
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
    "verifiers.worked": "verifiers.workers.worker_verifier",
    "verifiers.workers": "verifiers.workers.pool",
    "views": "analysis.view",
    "views.pages": "analysis.page.page",
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
    "batching.by_token_budget": "models.token_budget.by_token_budget",
    "callbacks.run_folder.RunLock": "callbacks.disk_errors.DiskErrors",
    "collectives.gather_batch": "distributed.gather.gather_batch",
    "commands.fit.FitCLI": "cli.training_cli.FitCLI",
    "commands.fit.FitParser": "cli.training_cli.FitParser",
    "commands.fit.SafeTrainer": "cli.training_cli.SafeTrainer",
    "comparisons.replays.Portrait": "analysis.compare.method_statistics.MethodStatistics",
    "comparisons.replays.Share": "analysis.compare.method_statistics.GroupShare",
    "data.RolloutLoader": "training.rollout_loader.RolloutLoader",
    "distributions.Companion": "models.distributions.HeadComparison",
    "distributions.Comparison": "models.distributions.DistributionComparison",
    "distributions.Distributions": "models.distributions.TeacherDistributions",
    "distributions.Head": "models.output_head.OutputHead",
    "distributions.kl": "reductions.kl",
    "engines.servers.Server": "engines.vllm.client.ServerClient",
    "engines.weight_transfers.Fleet": "engines.vllm.weight_transfer.BroadcastClient",
    "evaluations.benchmarks.Asking": "analysis.evaluate.benchmarks.PromptFormat",
    "overlaps.Overlap": "training.background_rollout.RolloutQueue",
    "signals.ContractError": "types.strategy.ContractError",
    "signals.Strategy": "types.strategy.Strategy",
    "signals.UndeclaredSignalError": "types.strategy.UndeclaredSignalError",
    "signals.union": "types.strategy.union",
    "statistics.Bootstrapped": "analysis.bootstrap.BootstrapEstimate",
    "symptoms.Above": "callbacks.failure_detectors.AboveLimit",
    "symptoms.Course": "callbacks.failure_detectors.MetricHistory",
    "symptoms.Fall": "callbacks.failure_detectors.Drop",
    "symptoms.Rise": "callbacks.failure_detectors.Increase",
    "symptoms.Stuck": "callbacks.failure_detectors.Constant",
    "symptoms.Symptom": "callbacks.failure_detectors.FailureDetector",
    "symptoms.Vanishing": "callbacks.failure_detectors.RelativeDrop",
    "testing.subjects.Question": "testing.subject.MethodSpec",
    "testing.subjects.Recorder": "testing.subject.SignalRecorder",
    "verifiers.worked.WorkedVerifier": "verifiers.workers.worker_verifier.WorkerVerifier",
    "views.Page": "analysis.page.page.Page",
    "views.View": "analysis.view.trajectory_view.View",
    "views.quantities.Kind": "analysis.view.quantities.Quantity",
    "views.spread": "analysis.view.trajectory_view.select_rows",
    "weights.Weights": "models.weight_stream.WeightStream",
}
"""Classes and functions that left their module or were renamed, with their new path."""


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
        path = NAMES.get(f"{old}.{name}", f"{MODULES[old]}.{name}")
        module, _, new_name = path.rpartition(".")
        value = getattr(import_module(f"fireopd.{module}"), new_name)
        message = f"{self.__name__}.{name} has moved to fireopd.{path}; the old path works until version 0.3"
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
