"""Command line of a training run: parser, trainer and Lightning CLI, used by every command that builds a run."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, cast

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from fireopd import callbacks as callbacks
from fireopd.callbacks.run_environment import RunRecord
from fireopd.callbacks.run_folder import RunLock
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.parser import Parser, instantiate
from fireopd.distributed.fsdp import FSDP2Strategy
from fireopd.errors import UserError
from fireopd.training.checkpoint_files import check, last_checkpoint, standing
from fireopd.training.csv_logger import SafeCSVLogger
from fireopd.training.data import RolloutDataModule
from fireopd.training.module import FiReOPDModule
from fireopd.training.run_checks import check_run

__all__ = ["FitCLI", "FitParser", "SafeTrainer", "build"]


def build(arguments: Sequence[str], *, train: bool) -> "FitCLI":
    """Build module, data module and trainer from command-line arguments; models are loaded only if `train` is set.

    Args:
        arguments: those of `fireopd fit`.
        train: train after building.
    """
    load_plugins()
    return FitCLI(
        FiReOPDModule,
        RolloutDataModule,
        args=["fit", *arguments] if train else list(arguments),
        run=train,
        parser_class=FitParser,
        trainer_class=SafeTrainer,
        parser_kwargs={"prog": "fireopd"},
        seed_everything_default=1,
        load_from_checkpoint_support=False,
        auto_configure_optimizers=False,
    )


class SafeTrainer(Trainer):
    """Trainer that loads checkpoints as data only (`weights_only`) by default."""

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool = True,
    ) -> None:
        """Train.

        Args:
            model: module to train.
            train_dataloaders: unused; the data module provides them.
            val_dataloaders: unused; the data module provides them.
            datamodule: provides the rollouts.
            ckpt_path: checkpoint to resume from; `last` for that of the last run in `default_root_dir`.
            weights_only: reject a checkpoint with objects other than tensors and plain values.

        Raises:
            UserError: for all problems of the run, or if the checkpoint does not exist or cannot be loaded as data.
        """
        if isinstance(model, FiReOPDModule) and isinstance(datamodule, RolloutDataModule):
            model.trainer = datamodule.trainer = self
            check_run(model.run_plan(datamodule))  # before Lightning's own checks
            model.checked = True
        if ckpt_path == "last":
            ckpt_path = str(last_checkpoint(Path(self.default_root_dir)))
        if ckpt_path is not None:
            ckpt_path = str(standing(Path(ckpt_path)))
            check(Path(ckpt_path), sharded=isinstance(self.strategy, FSDP2Strategy))
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)


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

    def add_arguments_to_parser(self, parser: Parser) -> None:
        """Link the student and the seed of the data module to those of the run."""
        parser.link_arguments("model.student", "data.student")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: Parser, args: ArgsType) -> None:
        """Parse the given arguments and ignore `sys.argv`."""
        self.config = parser.parse_args(cast(list[str], args))

    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint: only the configuration defines a run."""

    def instantiate_classes(self) -> None:
        """Instantiate module, data module and trainer."""
        self.config_init = instantiate(cast(Parser, self.parser), self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **settings: Any) -> Trainer:
        """Instantiate the trainer; the default loggers write to a new folder `<default_root_dir>/version_<n>`."""
        trainer = self._get(self.config_init, "trainer")
        if trainer["logger"] is None or trainer["logger"] is True:
            root = trainer["default_root_dir"] or "."
            curves = TensorBoardLogger(root, name=None)
            settings["logger"] = [curves, SafeCSVLogger(root, curves.version)]
        # Before the callback that writes the settings into the folder.
        trainer["callbacks"] = [RunLock(), RunRecord(), *(trainer["callbacks"] or [])]
        try:
            return super().instantiate_trainer(**settings)
        except (MisconfigurationException, ValueError) as error:
            if isinstance(error, UserError):
                raise
            reason = " ".join(str(error).split()).rstrip(".")
            remedy = "fix the trainer's settings; use --trainer.accelerator cpu on a machine without a GPU"
            raise UserError("trainer", str(trainer["accelerator"]), reason, remedy) from error

    def prepare(self) -> None:
        """Attach the trainer and load the prompts, as the checks require. No model is loaded."""
        self.model.trainer = self.datamodule.trainer = self.trainer
        self.datamodule.load()
