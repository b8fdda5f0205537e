"""Places of weights: sharded models take those of the first process, others are in CPU memory between their passes."""

from functools import partial

import pytest
import torch
from helpers.models import make_model
from helpers.processes import in_two_processes
from torch.distributed.device_mesh import init_device_mesh
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe import Qwen3MoeForCausalLM

from fireopd.distributed import collectives
from fireopd.distributed.fsdp import Sharding
from fireopd.distributed.gradient_clipping import clip_gradients
from fireopd.errors import UserError
from fireopd.models.loading import load_causal_lm
from fireopd.models.placement import LayersOnHost, Placement, ShardedPlacement
from fireopd.models.scorer import CausalScorer

CPU = torch.device("cpu")
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "num_key_value_heads": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model in bfloat16 with tied embeddings and odd sizes, and a mixture of experts."""
    folder = tmp_path_factory.mktemp("models")
    make_model("tied", torch.bfloat16, vocab_size=41).save_pretrained(folder / "tied")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    mixture = Qwen3MoeForCausalLM(Qwen3MoeConfig(vocab_size=40, head_dim=8, **sizes, **EXPERTS))
    mixture.save_pretrained(folder / "mixture")
    return folder


def load_as(rank, path, device, *, only_first=True):
    """Load in float32, for the first process only."""
    assert rank == 0 or not only_first, "another process read the weights"
    return load_causal_lm(str(path), "model.student", "float32", device)


def tensors(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


def sharded_like_a_plain_load(rank, folders):
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    for kind in ("tied", "mixture"):
        for frozen in (False, True):
            path, sharding = folders / kind, Sharding(offload_student=True, offload_teachers=True)
            placement = ShardedPlacement(sharding, mesh, frozen=frozen)
            model = placement.load(partial(load_as, rank, path))
            scorer = CausalScorer(model.requires_grad_(not frozen))
            placement.check("model.student", str(path), scorer)
            placement(scorer)
            plain = load_causal_lm(str(path), "model.student", "float32")
            expected, found = tensors(plain), tensors(scorer.model)
            assert expected.keys() == found.keys()
            for name, tensor in found.items():
                whole = collectives.full_tensor(tensor.detach())
                assert whole.dtype == expected[name].dtype
                assert torch.equal(whole, expected[name]), name
            tied = scorer.model.get_output_embeddings().weight is scorer.model.get_input_embeddings().weight
            assert tied == (kind == "tied")
            mask = torch.ones_like(TOKENS, dtype=torch.bool)
            scores = scorer(TOKENS, mask).logprobs
            torch.testing.assert_close(scores.detach(), CausalScorer(plain)(TOKENS, mask).logprobs.detach())
            if not frozen:
                scores.sum().backward()
                clips_like_pytorch(scorer)
    with pytest.raises(UserError, match="holds no config.json"):
        placement.load(partial(load_causal_lm, str(folders), "model.student", "float32"))
    with pytest.raises(UserError, match="differ from the model's own logits"):
        placement.check("model.student", "x", Wrong(plain) if rank == 0 else scorer)


class Wrong(CausalScorer):
    """Scores that are not those of the model."""

    def forward(self, tokens, mask, **settings):
        scores = super().forward(tokens, mask, **settings)
        scores.logprobs[:] -= 1
        return scores


def clips_like_pytorch(scorer):
    """Compare the clipping of shards in CPU memory with that of PyTorch."""
    parameters = list(scorer.parameters())
    before = [p.grad.clone() for p in parameters]
    norm = clip_gradients(parameters, 0.5, CPU, offloaded=True)
    clipped = [p.grad.to_local() for p in parameters]
    for parameter, gradient in zip(parameters, before, strict=True):
        parameter.grad = gradient
    torch.testing.assert_close(norm, clip_gradients(parameters, 0.5, CPU, offloaded=False))
    assert norm > 0.5
    for one, parameter in zip(clipped, parameters, strict=True):
        torch.testing.assert_close(one, parameter.grad.to_local())


def test_the_first_process_reads_a_sharded_model_for_all(folders):
    in_two_processes(sharded_like_a_plain_load, folders)


def test_layers_in_cpu_memory_are_copied_during_their_pass_only():
    scorer, expected = CausalScorer(make_model("tied")), make_model("tied").state_dict()
    first = {name: parameter.data_ptr() for name, parameter in scorer.named_parameters()}
    layers, seen = list(scorer.model.model.layers), []
    LayersOnHost(CPU)(scorer)

    def copied():
        return {name for name, parameter in scorer.named_parameters() if parameter.data_ptr() != first[name]}

    def fail(*_):
        raise RuntimeError

    for layer in layers:
        layer.self_attn.register_forward_hook(lambda *_: seen.append(copied()))
    mask = torch.ones_like(TOKENS, dtype=torch.bool)
    scorer(TOKENS, mask)
    outside = {name for name in first if ".layers." not in name}
    assert seen == [outside | {name for name in first if f".layers.{number}." in name} for number in (0, 1)]
    layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError):
        scorer(TOKENS, mask)
    assert not copied()
    for name, tensor in scorer.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_layers_in_cpu_memory_give_the_same_scores():
    scorer, mask = CausalScorer(make_model("tied")), torch.ones_like(TOKENS, dtype=torch.bool)
    expected = scorer(TOKENS, mask).logprobs
    placement = LayersOnHost(CPU)
    assert placement.load(lambda device: device) == CPU
    placement(scorer)
    assert torch.equal(scorer(TOKENS, mask).logprobs, expected)


def test_a_probe_on_the_cpu_needs_no_kernels_of_a_gpu():
    scorer = CausalScorer(make_model("tied"), kernels="triton")
    Placement(CPU).check("model.student", "x", scorer)
    assert scorer.kernels == "triton"
