"""Model families: scores as student and as teacher equal those of plain transformers, or the model is refused."""

import pytest
import torch
import transformers
from helpers.fakes import rollouts_of, scored_batch
from transformers import AutoModelForCausalLM

from fireopd.errors import UserError
from fireopd.models.output_head import LogitTransform
from fireopd.models.scorer import CausalScorer, check_scorer
from fireopd.teachers import HFTeacher

V = 40
PLAIN = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GATED = PLAIN | {"intermediate_size": 24}
SMALL = GATED | {"num_key_value_heads": 1}
HEADS = SMALL | {"head_dim": 8}
EXPERTS = {"num_local_experts": 4}
CAP = {"final_logit_softcapping": 3.0}
GPT = {"vocab_size": V, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
GEMMA3N = {"vocab_size_per_layer_input": V, "hidden_size_per_layer_input": 4, "num_kv_shared_layers": 0}
GEMMA3N |= {"laurel_rank": 4, "activation_sparsity_pattern": None, "altup_num_inputs": 2}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
ROUTED = {"moe_intermediate_size": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2}
MAMBA = {"mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
FAMILIES = {
    "Bloom": {"vocab_size": V, "hidden_size": 16, "n_layer": 1, "n_head": 2},
    "Cohere": SMALL | {"logit_scale": 0.25},
    "Cohere2": SMALL | {"logit_scale": 0.25},
    "DeepseekV3": GATED | {"num_key_value_heads": 2, "first_k_dense_replace": 0} | LATENT | ROUTED,
    "FalconH1": SMALL | MAMBA | {"mamba_chunk_size": 8, "lm_head_multiplier": 0.25},
    "GPT2": GPT,
    "GPTNeoX": GATED,
    "Gemma": HEADS,
    "Gemma2": HEADS | CAP,
    "Gemma3Text": HEADS | CAP,
    "Gemma3nText": HEADS | CAP | GEMMA3N | {"layer_types": ["full_attention"]},
    "Glm4": HEADS | {"pad_token_id": 0},
    "GptOss": HEADS | EXPERTS,
    "Granite": SMALL | {"logits_scaling": 4.0},
    "GraniteMoe": SMALL | EXPERTS | {"logits_scaling": 4.0},
    "HyperCLOVAX": SMALL | {"logits_scaling": 0.25},
    "Llama": SMALL,
    "Llama4Text": HEADS | {"intermediate_size_mlp": 24, "num_local_experts": 2, "pad_token_id": 0},
    "Mamba2": PLAIN | {"state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "Mistral": SMALL | {"sliding_window": 4},
    "Mixtral": SMALL | EXPERTS,
    "NanoChat": SMALL | CAP,
    "OPT": PLAIN | {"ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 32},
    "Olmo2": SMALL,
    "Phi": SMALL,
    "Phi3": SMALL | {"pad_token_id": 0},
    "Qwen2": SMALL,
    "Qwen3": HEADS,
    "Qwen3Moe": HEADS | {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2},
    "RecurrentGemma": SMALL | {"logits_soft_cap": 3.0, "lru_width": 16},
    "SmolLM3": SMALL | {"pad_token_id": 0},
}
REFUSED = {
    "InklingText": HEADS,
    "Mpt": {"vocab_size": V, "d_model": 16, "n_heads": 2, "n_layers": 1, "logit_scale": 0.5},
}
"""Inkling removes paddings from its logits; transformers ignores the scale of MPT."""


def make_model(family, settings):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_those_of_transformers(family):
    model = make_model(family, FAMILIES[family])
    batch = scored_batch(2, 9, seed=2)
    tokens, mask = batch.tokens, batch.response_mask
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1] / 0.7
    expected = torch.zeros(tokens.shape)
    expected[:, 1:] = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1) * mask[:, 1:]
    gradients = torch.autograd.grad(expected.sum(), model.get_output_embeddings().weight)
    scorer = CausalScorer(model, 3 * V)
    check_scorer("model.student", family, scorer)
    student = scorer(tokens, mask, temperature=0.7).logprobs
    torch.testing.assert_close(student, expected, rtol=1e-5, atol=1e-5)
    own = torch.autograd.grad(student.sum(), model.get_output_embeddings().weight)
    torch.testing.assert_close(own, gradients, rtol=1e-4, atol=1e-5)
    teacher = HFTeacher(family)
    teacher.scorer = CausalScorer(model.requires_grad_(False), 3 * V)
    rollouts = rollouts_of(batch)
    scores, distributions = teacher.score_with_distributions(rollouts, entropy=False)
    plain = model(input_ids=tokens, use_cache=False).logits[:, :-1].log_softmax(-1)
    for row in range(2):
        own = distributions.heads[row](distributions.hidden_states[row]).log_softmax(-1)
        torch.testing.assert_close(own, plain[row][mask[row, 1:]], rtol=1e-5, atol=1e-5)
        chosen = own.gather(-1, tokens[row][mask[row]][:, None]).squeeze(-1)
        torch.testing.assert_close(scores.logprobs[row][mask[row]], chosen, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", REFUSED)
def test_other_transformations_are_refused(family):
    model = make_model(family, REFUSED[family])
    with pytest.raises(UserError, match=r"scores of a probe differ from the model's own logits by \S+ nats"):
        check_scorer("model.student", family, CausalScorer(model))


def test_factors_of_the_architectures():
    assert LogitTransform.from_config(transformers.LlamaConfig()) == LogitTransform()
    assert LogitTransform.from_config(transformers.Gemma2Config()) == LogitTransform(cap=30.0)
    assert LogitTransform.from_config(transformers.CohereConfig()) == LogitTransform(0.0625)
    assert LogitTransform.from_config(transformers.GraniteConfig(logits_scaling=8.0)) == LogitTransform(0.125)
