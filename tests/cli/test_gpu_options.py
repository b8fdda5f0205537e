"""Options of `fireopd check` for GPUs that this machine does not have."""

import pytest

from fireopd.cli.gpu_options import take_gpu_options
from fireopd.errors import UserError


def test_options_are_taken_and_the_rest_is_left():
    gpus, rest = take_gpu_options(["--config=a.yaml", "--gpus", "8", "--gpu_memory=79.5", "--model.dtype", "float32"])
    assert rest == ["--config=a.yaml", "--model.dtype", "float32"]
    assert (gpus.gpus, gpus.memory, gpus.card) == (8, int(79.5 * 2**30), None)
    gpus, _ = take_gpu_options(["--gpus=2", "--gpu=h200", "--mean_response=2000"])
    assert (gpus.memory, gpus.card.name, gpus.mean_response) == (141 * 2**30, "H200", 2000)
    assert take_gpu_options(["--trainer.devices=2"]) == (None, ["--trainer.devices=2"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu_memory=80"], "--gpu_memory: '80': it has no effect without --gpus"),
        (["--gpu=H100"], "--gpu: 'H100': it has no effect without --gpus"),
        (["--gpus=8"], "--gpu_memory: None: missing"),
        (["--gpus=0", "--gpu=H100"], "--gpus: '0': not a whole number of at least 1"),
        (["--gpus=8", "--gpu_memory=nan"], "--gpu_memory: 'nan': not a number greater than 0"),
        (["--gpus=8", "--gpu=H900"], "--gpu: 'H900': no such card"),
        (["--gpus", "--gpu=H100"], "--gpus: None: it has no value"),
        (["--gpus=8", "--gpu_memory=80", "--mean_response=9"], "--mean_response: '9': it has no effect without --gpu"),
        (["--gpus=8", "--gpu=H100", "--trainer.devices=4"], "--trainer.devices: '4': --gpus replaces it"),
    ],
)
def test_options_without_effect_and_invalid_values_are_refused(arguments, message):
    with pytest.raises(UserError) as raised:
        take_gpu_options(arguments)
    assert str(raised.value).startswith(message)
