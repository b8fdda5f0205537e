"""Engine for multi-process runs that fails on one process."""

from dataclasses import dataclass

from fireopd.distributed import collectives
from fireopd.engines import HFEngine


@dataclass
class FailingEngine(HFEngine):
    """Fails on the second process after three optimizer steps."""

    def generate(self, prompts, seeds):
        if self.policy_version == 3 and collectives.rank() == 1:
            raise OSError("the engine of the second process broke")
        return super().generate(prompts, seeds)
