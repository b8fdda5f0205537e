"""Command line of a training run: parser, trainer and Lightning CLI, used by every command that builds a run."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, cast

from jsonargparse import set_parsing_settings
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from fireopd import callbacks as callbacks
from fireopd.callbacks.disk_errors import DiskErrors
from fireopd.callbacks.run_environment import RunRecord
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.instantiation import instantiate
from fireopd.cli.parse_errors import ParseError, report_all
from fireopd.cli.parser import Parser
from fireopd.cli.run_loggers import place_loggers, run_loggers
from fireopd.cli.trainer_errors import CAUSES, quiet_trainer, trainer_error
from fireopd.distributed.fsdp import FSDP2Strategy
from fireopd.distributed.rendezvous import ending_on_signals
from fireopd.errors import UserError, collect_errors, raise_together
from fireopd.private_apis import raised_in_restore
from fireopd.training.checkpoint_files import check, clean, last_checkpoint, standing
from fireopd.training.csv_logger import SafeCSVLogger
from fireopd.training.data import RolloutDataModule
from fireopd.training.module import FiReOPDModule
from fireopd.training.resume_checks import check_resume
from fireopd.training.run_checks import check_run
from fireopd.training.run_folder import writing_run
from fireopd.training.run_layout import CONFIG, next_folder
from fireopd.training.run_settings import plain
from fireopd.training.tensorboard_logger import quiet_writer_thread

USAGE = "fireopd fit --config FILE [--config OVERLAY ...] [--SETTING VALUE ...]"
"""Usage of `fireopd fit`; that of the parser lists two hundred options."""
FIRST_SETTINGS = """Train a student. The settings that matter first:

  --config FILE                   configuration; further files and options override it
  --model.student NAME            folder, hub name or embedded model
  --model.teachers '{...}'        teachers by name
  --data.prompts CLASS            prompt source, with --data.prompts.train FILE and others
  --model.trajectory_filter CLASS, --model.token_weighter CLASS, --model.objective CLASS
                                  method; fireopd methods lists those of papers
  --data.batch_size N             prompts per step
  --data.engine.max_response_length N
                                  tokens per response
  --model.optimizer.lr RATE       learning rate
  --trainer.max_steps N           optimizer steps
  --trainer.default_root_dir DIR  folder of the runs

--print_config prints all settings, --KEY.help CLASS those of a class."""
"""Description of `fireopd fit`."""

__all__ = ["FitCLI", "FitParser", "SafeTrainer", "TrainingStoppedError", "build"]


def build(arguments: Sequence[str], *, train: bool) -> "FitCLI":
    """Build module, data module and trainer from command-line arguments; models are loaded only if `train` is set.

    Args:
        arguments: those of `fireopd fit`.
        train: train after building.
    """
    load_plugins()
    shows_help = any(argument == "-h" or "help" in argument or "comments" in argument for argument in arguments)
    set_parsing_settings(docstring_parse_attribute_docstrings=shows_help)  # takes a second, and only help shows them
    whole = [re.sub(r"^-c=?(?=.)", "--config=", own) if own != "-c" else "--config" for own in arguments]
    described = {"description": FIRST_SETTINGS, "usage": USAGE}
    return FitCLI(
        FiReOPDModule,
        RolloutDataModule,
        args=["fit", *whole] if train else whole,
        run=train,
        parser_class=FitParser,
        trainer_class=SafeTrainer,
        parser_kwargs={"prog": "fireopd"} | ({"fit": described} if train else {}),
        seed_everything_default=1,
        load_from_checkpoint_support=False,
        auto_configure_optimizers=False,
    )


class TrainingStoppedError(Exception):
    """Ctrl-C during training, after the callbacks have saved what can be saved."""


class SafeTrainer(Trainer):
    """Trainer that loads checkpoints as data only (`weights_only`) by default, and locks the folder of the run."""

    @property
    def log_dir(self) -> str | None:
        """Folder of the run, that of `metrics.csv`, whatever the other loggers are. Every process must call."""
        folders = [logger.log_dir for logger in self.loggers if isinstance(logger, SafeCSVLogger)]
        return self.strategy.broadcast(folders[0]) if folders else super().log_dir

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool = True,
        resume_with_changes: bool = False,
    ) -> None:
        """Train.

        Args:
            model: module to train.
            train_dataloaders: unused; the data module provides them.
            val_dataloaders: unused; the data module provides them.
            datamodule: provides the rollouts.
            ckpt_path: checkpoint to resume from; `last` for that of the last run in `default_root_dir`.
            weights_only: reject a checkpoint with objects other than tensors and plain values.
            resume_with_changes: resume although settings that make it another run differ from the checkpoint's.

        Raises:
            TrainingStoppedError: on Ctrl-C.
            UserError: for all problems of the run, or if the checkpoint does not exist or cannot be loaded as data.
        """
        path, found = None, list[UserError]()
        if isinstance(model, FiReOPDModule) and isinstance(datamodule, RolloutDataModule):
            model.trainer = datamodule.trainer = self
            with collect_errors(found):
                check_run(model.run_plan(datamodule))  # before Lightning's own checks
            model.checked = True
        if ckpt_path is not None:
            with collect_errors(found):
                path = self.check_checkpoint(ckpt_path, model, datamodule, resume_with_changes=resume_with_changes)
        raise_together(found)
        clean(Path(self.default_root_dir))
        try:
            with writing_run(self), quiet_writer_thread(), ending_on_signals(self.strategy):
                super().fit(model, train_dataloaders, val_dataloaders, datamodule, path, weights_only)
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into the exit code 1
                raise TrainingStoppedError from stop
            raise
        except Exception as error:
            if isinstance(error, UserError) or path is None or not raised_in_restore(error):
                raise
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            problem = f"its state cannot be restored ({reason})"
            raise UserError("--ckpt_path", path, problem, "give another checkpoint, or start a new run") from error

    def check_checkpoint(
        self, ckpt_path: str, model: LightningModule, data: LightningDataModule | None, *, resume_with_changes: bool
    ) -> str:
        """Check that a run can resume from a checkpoint, before any model is loaded, and return its path.

        Raises:
            UserError: see `check` and `check_resume`.
        """
        place = last_checkpoint(Path(self.default_root_dir)) if ckpt_path == "last" else standing(Path(ckpt_path))
        strategy = self.strategy
        check(place, sharded=isinstance(strategy, FSDP2Strategy), whole=self.local_rank == 0)
        if isinstance(model, FiReOPDModule):
            model.resume_with_changes = resume_with_changes
            check_resume(place, model, data.fingerprint if isinstance(data, RolloutDataModule) else None)
            if isinstance(strategy, FSDP2Strategy):
                strategy.restores_optimizers = not model.fresh_optimizer
        return str(place)


class FitParser(Parser):
    """Parser with the settings of a run, used for suggestions."""

    settings = tuple(
        f"{key}.{name}"
        for key, owner in {"model": FiReOPDModule, "data": RolloutDataModule, "trainer": Trainer}.items()
        for name in signature(owner).parameters
    )


class FitCLI(LightningCLI):
    """Lightning CLI with the subcommand `fit` and links between settings."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommand and those of its arguments that are not settings."""
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Set up the parser; without subcommands, it takes the arguments of `fit` too."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        if not add_subcommands:
            self.parser.add_method_arguments(SafeTrainer, "fit", skip=set(self.subcommands()["fit"]))

    def add_arguments_to_parser(self, parser: Parser) -> None:
        """Link the student and the seed of the data module to those of the run."""
        parser.link_arguments("model.student", "data.student")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: Parser, args: ArgsType) -> None:
        """Parse the given arguments and ignore `sys.argv`; all errors are reported, not the first one alone."""
        self.arguments = cast(list[str], args)
        with self._reporting_all():
            self.config = parser.parse_args(self.arguments)

    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint: only the configuration defines a run."""

    def before_fit(self) -> None:
        """Log the files of the configuration."""
        files = ", ".join(path.relative for path in self._get(self.config, "config", []) or [])
        rank_zero_info(f"Configuration: {files or 'options only'}; complete in {self.folder / CONFIG}")

    def instantiate_classes(self) -> None:
        """Instantiate module, data module and trainer. All loggers write to `<default_root_dir>/version_<n>`."""
        with self._reporting_all():
            self._instantiate_all()
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.model.settings = plain(vars(self.config[self.subcommand] if self.subcommand else self.config))

    @contextmanager
    def _reporting_all(self) -> Iterator[None]:
        """Context in which an error of the settings is reported with all others, those of constructors included."""

        def check(arguments: Sequence[str]) -> None:
            """Parse and instantiate arguments."""
            self.config = self.parser.parse_args(arguments)
            self.subcommand = self.config.get("subcommand")
            with quiet_trainer():
                self._instantiate_all()

        with Parser.collecting():
            try:
                yield
            except (ParseError, UserError) as error:
                report_all(error, self.arguments, check)

    def _instantiate_all(self) -> None:
        """Instantiate the settings and the trainer; all loggers write to the next folder of the run."""
        within = f"{self.subcommand}." if self.subcommand else ""
        self.folder = next_folder(Path(self.config[f"{within}trainer.default_root_dir"] or "."))
        placed = place_loggers(self.config, f"{within}trainer.logger", self.folder)
        self.config_init = instantiate(cast(Parser, self.parser), placed)
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **settings: Any) -> Trainer:
        """Instantiate the trainer with the loggers and callbacks of every run."""
        trainer = self._get(self.config_init, "trainer")
        trainer["logger"] = run_loggers(trainer["logger"], self.folder)
        trainer["callbacks"] = [DiskErrors(), RunRecord(), *(trainer["callbacks"] or [])]
        try:
            return super().instantiate_trainer(**settings)
        except UserError:
            raise
        except CAUSES as error:
            raise trainer_error(trainer, error) from error

    def prepare(self) -> None:
        """Attach the trainer and load the prompts, as the checks require. No model is loaded."""
        self.model.trainer = self.datamodule.trainer = self.trainer
        self.datamodule.load()

    def resume_problems(self) -> list[UserError]:
        """Return the problems of a resume from the checkpoint that the settings name, after `prepare`."""
        found = list[UserError]()
        if self.config.ckpt_path is not None:
            with collect_errors(found):
                trainer, allowed = cast(SafeTrainer, self.trainer), self.config.resume_with_changes
                path = self.config.ckpt_path
                trainer.check_checkpoint(path, self.model, self.datamodule, resume_with_changes=allowed)
        return found
