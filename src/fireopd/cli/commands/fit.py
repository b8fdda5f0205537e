"""`fireopd fit --config FILE`: train a student. The settings are those of module, data module and trainer."""

import signal
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, cast

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd import callbacks as callbacks
from fireopd.callbacks.run_folder import RunLock
from fireopd.callbacks.run_record import RunRecord
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.parser import Parser, instantiate
from fireopd.distributed.fsdp import FSDP2Strategy
from fireopd.errors import UserError
from fireopd.training.checkpoints import check, last_checkpoint, standing
from fireopd.training.csv_logger import SafeCSVLogger
from fireopd.training.data import RolloutDataModule
from fireopd.training.module import FiReOPDModule


def run(arguments: Sequence[str]) -> None:
    """Parse the settings, make the objects, train."""
    try:
        build(arguments, train=True)
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)


def build(arguments: Sequence[str], *, train: bool) -> "FitCLI":
    """Return module, data module and trainer as the settings describe them; no model is loaded unless it trains."""
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
    """Loads checkpoints as data, never as code, unless told otherwise."""

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
            model: what is trained.
            train_dataloaders: follow the data module.
            val_dataloaders: follow the data module.
            datamodule: gives the rollouts.
            ckpt_path: the checkpoint to go on from; `last` for that of the last run in default_root_dir.
            weights_only: refuse a checkpoint that holds more than tensors and plain values.

        Raises:
            UserError: if there is no such checkpoint, or if it cannot be read as data.
        """
        if ckpt_path == "last":
            ckpt_path = str(last_checkpoint(Path(self.default_root_dir)))
        if ckpt_path is not None:
            ckpt_path = str(standing(Path(ckpt_path)))
            check(Path(ckpt_path), sharded=isinstance(self.strategy, FSDP2Strategy))
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)


class FitParser(Parser):
    """Knows the settings of a run."""

    settings = tuple(
        f"{key}.{name}"
        for key, owner in {"model": FiReOPDModule, "data": RolloutDataModule, "trainer": Trainer}.items()
        for name in signature(owner).parameters
    )


class FitCLI(LightningCLI):
    """Lightning's command line with one subcommand and our links between settings."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the one subcommand, and what of it is no setting."""
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

    def add_arguments_to_parser(self, parser: Parser) -> None:
        """Let the data module follow the student and the seed."""
        parser.link_arguments("model.student", "data.student")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: Parser, args: ArgsType) -> None:
        """Parse the arguments that were given, whatever stands in sys.argv."""
        self.config = parser.parse_args(cast(list[str], args))

    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint: the configuration says what a run is."""

    def instantiate_classes(self) -> None:
        """Make the objects."""
        self.config_init = instantiate(cast(Parser, self.parser), self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **settings: Any) -> Trainer:
        """Make the trainer; unless a logger is named, everything goes to `<default_root_dir>/version_<n>`, alone."""
        trainer = self._get(self.config_init, "trainer")
        if trainer["logger"] is None or trainer["logger"] is True:
            root = trainer["default_root_dir"] or "."
            curves = TensorBoardLogger(root, name=None)
            settings["logger"] = [curves, SafeCSVLogger(root, curves.version)]
        # First of all, before the settings are written there.
        trainer["callbacks"] = [RunLock(), RunRecord(), *(trainer["callbacks"] or [])]
        try:
            return super().instantiate_trainer(**settings)
        except MisconfigurationException as error:
            reason = " ".join(str(error).split()).rstrip(".")
            remedy = "mend the trainer's settings; --trainer.accelerator cpu runs where there is no GPU"
            raise UserError("trainer", str(trainer["accelerator"]), reason, remedy) from error

    def prepare(self) -> None:
        """Let module and data module know the trainer, and read the prompts: what checks need. No model is loaded."""
        self.model.trainer = self.trainer
        self.datamodule.trainer = self.trainer
        self.datamodule.setup("fit")
