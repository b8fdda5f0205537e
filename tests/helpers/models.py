"""Small random models, and teachers with these models."""

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from fireopd.models.scorer import CausalScorer
from fireopd.teachers import HFTeacher

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


CONFIGS = {
    "tied": Qwen3Config(vocab_size=40, head_dim=8, num_key_value_heads=1, tie_word_embeddings=True, **SIZES),
    "untied": LlamaConfig(vocab_size=40, num_key_value_heads=2, tie_word_embeddings=False, **SIZES),
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32, attn_pdrop=0.0, resid_pdrop=0.0),
}


def make_model(kind, dtype=torch.float32, **settings):
    torch.manual_seed(0)
    config = type(CONFIGS[kind])(**CONFIGS[kind].to_dict() | settings) if settings else CONFIGS[kind]
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def wide_model():
    """Return a teacher model with a larger hidden size than the student and a bias in its head."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=40, tie_word_embeddings=False, **sizes)).eval()
    model.lm_head = torch.nn.Linear(24, 40, bias=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.2 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def teachers_of(models, chunk):
    """Return teachers with the given models, without loading files."""
    made = {}
    for name, model in models.items():
        made[name] = HFTeacher(name, token_budget=30)
        made[name].scorer = CausalScorer(model.requires_grad_(False), chunk * 40)
    return made
