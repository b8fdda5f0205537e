"""A callback for runs in processes of their own: writes down how many bytes each process holds of what."""

import json
from pathlib import Path

from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor


def held(tensors) -> int:
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


class Holdings(Callback):
    """Writes `holdings_<rank>.json` into the root folder."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.bytes = {"gradients": held(p.grad for p in pl_module.parameters())}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        state = [x for state in trainer.optimizers[0].state.values() for x in state.values() if isinstance(x, Tensor)]
        teachers = [p for teacher in pl_module.teachers.values() for p in teacher.scorer.parameters()]
        self.bytes |= {"student": held(pl_module.parameters()), "optimizer": held(state), "teachers": held(teachers)}
        path = Path(trainer.default_root_dir, f"holdings_{trainer.global_rank}.json")
        path.write_text(json.dumps(self.bytes))
