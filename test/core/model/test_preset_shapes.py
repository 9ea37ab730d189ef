"""The paper's two sizes against timm's and transformers' own models, on the meta device: no weights, only shapes."""
from __future__ import annotations

import pytest
import torch

from hybridvla_core.model.decoder import Decoder
from hybridvla_core.model.presets import preset
from hybridvla_core.model.timm_import import vision_transformer
from hybridvla_core.model.vision import MODULE_NAMES, VisionBackbone

#: timm's name for each tower.
TOWERS = [("hybridvla-7b", "dino", "vit_large_patch14_reg4_dinov2"), ("hybridvla-7b", "siglip", "vit_so400m_patch14_siglip_224"),
          ("hybridvla-2.7b", "clip", "vit_large_patch14_clip_quickgelu_224")]
#: Dimensions as published with the weights, and the total number of parameters.
LLAMA_2_7B = dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
                  num_key_value_heads=32, vocab_size=32000)
PHI_2 = dict(hidden_size=2560, intermediate_size=10240, num_hidden_layers=32, num_attention_heads=32, vocab_size=51200,
             partial_rotary_factor=0.4)
LLAMA_2_7B_COUNT, PHI_2_COUNT = 6_738_415_616, 2_779_683_840


def shapes(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def on_meta(build):
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize("name, kind, theirs", TOWERS)
def test_towers_are_timms_without_the_block_that_is_not_used(name, kind, theirs):
    vision_transformer()                       # declares what timm's import needs
    import timm

    reference = on_meta(lambda: timm.create_model(theirs, pretrained=False, num_classes=0, img_size=224))
    tower = getattr(on_meta(lambda: VisionBackbone(preset(name).towers)), MODULE_NAMES[kind])
    left_out = (f"blocks.{len(reference.blocks) - 1}.", "norm.", "attn_pool.")
    assert shapes(tower) == {key: shape for key, shape in shapes(reference).items() if not key.startswith(left_out)}
    assert tower.num_prefix_tokens == reference.num_prefix_tokens and tower.no_embed_class == reference.no_embed_class
    ours, block = tower.blocks[0], reference.blocks[0]
    assert (ours.attn.num_heads, ours.norm1.eps) == (block.attn.num_heads, block.norm1.eps)
    assert type(ours.mlp.act).__name__ == type(block.mlp.act).__name__


def decoders(name, family, published):
    from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

    config = preset(name).decoder
    build, kind = (LlamaForCausalLM, LlamaConfig) if family == "llama" else (PhiForCausalLM, PhiConfig)
    assert config.family == family
    reference = on_meta(lambda: build(kind(**{**published, "vocab_size": config.vocab_rows})))
    return config, reference, on_meta(lambda: Decoder(config))


@pytest.mark.parametrize("name, family, published, count", [
    ("hybridvla-7b", "llama", LLAMA_2_7B, LLAMA_2_7B_COUNT), ("hybridvla-2.7b", "phi", PHI_2, PHI_2_COUNT)])
def test_decoders_are_llama_2_7b_and_phi_2(name, family, published, count):
    vision_transformer()                       # declares what transformers' import needs
    config, reference, decoder = decoders(name, family, published)
    assert shapes(decoder) == {key: shape for key, shape in shapes(reference).items() if "inv_freq" not in key}
    rows = config.hidden * 2 + (family == "phi")            # embedding, head, and Phi's bias of the head
    total = sum(parameter.numel() for parameter in decoder.parameters())
    assert total == count + (config.vocab_rows - published["vocab_size"]) * rows
    assert total == sum(parameter.numel() for parameter in reference.parameters())
    # Since transformers 5 the base of the rotations is stored in a dictionary.
    parameters = getattr(reference.config, "rope_parameters", None) or {"rope_theta": reference.config.rope_theta}
    assert (config.heads, config.rope_theta) == (published["num_attention_heads"], parameters["rope_theta"])
    head = published["hidden_size"] // published["num_attention_heads"]
    assert config.rotary_dim == int(published.get("partial_rotary_factor", 1.0) * head)
