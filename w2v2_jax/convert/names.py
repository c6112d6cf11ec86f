"""How others call the parameters: the table that every conversion applies, and nothing else knows.

Keys are our paths, a module's or a single parameter's; `{i}` is the number of a block, `{layer}` that of a layer, which
others keep apart and we stack.
"""

from collections.abc import Mapping

Names = Mapping[str, str]

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "direction": "parametrizations.weight.original1",
    "magnitude": "parametrizations.weight.original0",
    "mean": "running_mean",
    "variance": "running_var",
    "count": "num_batches_tracked",
}
"""Parameters that are called alike in every module of torch. The weight norm in its newer spelling."""

OLDER_SPELLINGS = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}
"""The weight norm as torch spelled it up to 1.13, and as fairseq and the published files still do."""

TRANSPOSED = ("kernel", "direction")
"""Torch lists outputs first, we list them last."""

_LAYER = "context_network/layer"

HUGGINGFACE_ENCODER = {
    "feature_encoder/block_{i}": "feature_extractor.conv_layers.{i}.conv",
    "feature_encoder/block_{i}/norm": "feature_extractor.conv_layers.{i}.layer_norm",
    "feature_norm": "feature_projection.layer_norm",
    "projection": "feature_projection.projection",
    "mask_embedding": "masked_spec_embed",
    "context_network/position": "encoder.pos_conv_embed.conv",
    "context_network/first_norm": "encoder.layer_norm",
    "context_network/last_norm": "encoder.layer_norm",
}
HUGGINGFACE_TRANSFORMER = {
    f"{_LAYER}/attention/query": "encoder.layers.{layer}.attention.q_proj",
    f"{_LAYER}/attention/key": "encoder.layers.{layer}.attention.k_proj",
    f"{_LAYER}/attention/value": "encoder.layers.{layer}.attention.v_proj",
    f"{_LAYER}/attention/out": "encoder.layers.{layer}.attention.out_proj",
    f"{_LAYER}/attention_norm": "encoder.layers.{layer}.layer_norm",
    f"{_LAYER}/feed_forward/up": "encoder.layers.{layer}.feed_forward.intermediate_dense",
    f"{_LAYER}/feed_forward/down": "encoder.layers.{layer}.feed_forward.output_dense",
    f"{_LAYER}/output_norm": "encoder.layers.{layer}.final_layer_norm",
    f"{_LAYER}/adapter/norm": "encoder.layers.{layer}.adapter_layer.norm",
    f"{_LAYER}/adapter/down": "encoder.layers.{layer}.adapter_layer.linear_1",
    f"{_LAYER}/adapter/up": "encoder.layers.{layer}.adapter_layer.linear_2",
}
_CONFORMER = {
    f"{_LAYER}/attention_norm": "encoder.layers.{layer}.self_attn_layer_norm",
    f"{_LAYER}/attention/query": "encoder.layers.{layer}.self_attn.linear_q",
    f"{_LAYER}/attention/key": "encoder.layers.{layer}.self_attn.linear_k",
    f"{_LAYER}/attention/value": "encoder.layers.{layer}.self_attn.linear_v",
    f"{_LAYER}/attention/out": "encoder.layers.{layer}.self_attn.linear_out",
    f"{_LAYER}/attention/position": "encoder.layers.{layer}.self_attn.linear_pos",
    f"{_LAYER}/attention/content_bias": "encoder.layers.{layer}.self_attn.pos_bias_u",
    f"{_LAYER}/attention/position_bias": "encoder.layers.{layer}.self_attn.pos_bias_v",
    f"{_LAYER}/convolution/norm": "encoder.layers.{layer}.conv_module.layer_norm",
    f"{_LAYER}/convolution/up": "encoder.layers.{layer}.conv_module.pointwise_conv1",
    f"{_LAYER}/convolution/depthwise": "encoder.layers.{layer}.conv_module.depthwise_conv",
    f"{_LAYER}/convolution/batch_norm": "encoder.layers.{layer}.conv_module.batch_norm",
    f"{_LAYER}/convolution/batch_norm/statistics": "encoder.layers.{layer}.conv_module.batch_norm",
    f"{_LAYER}/convolution/down": "encoder.layers.{layer}.conv_module.pointwise_conv2",
    f"{_LAYER}/output_norm": "encoder.layers.{layer}.final_layer_norm",
}
HUGGINGFACE_CONFORMER = _CONFORMER | {
    f"{_LAYER}/first_ffn_norm": "encoder.layers.{layer}.ffn1_layer_norm",
    f"{_LAYER}/first_ffn/up": "encoder.layers.{layer}.ffn1.intermediate_dense",
    f"{_LAYER}/first_ffn/down": "encoder.layers.{layer}.ffn1.output_dense",
    f"{_LAYER}/second_ffn_norm": "encoder.layers.{layer}.ffn2_layer_norm",
    f"{_LAYER}/second_ffn/up": "encoder.layers.{layer}.ffn2.intermediate_dense",
    f"{_LAYER}/second_ffn/down": "encoder.layers.{layer}.ffn2.output_dense",
}
HUGGINGFACE_HEADS = {
    "quantizer/logits": "quantizer.weight_proj",
    "quantizer/codebook": "quantizer.codevectors",
    "project_context": "project_hid",
    "project_quantized": "project_q",
    "head": "lm_head",
    "representation/weights": "layer_weights",
    "projector": "projector",
    "classifier": "classifier",
    "tdnn_{i}": "tdnn.{i}.kernel",
    "embedding": "feature_extractor",
    "speakers": "objective.weight",
}
HUGGINGFACE_ROTATIONS = "encoder.embed_positions.inv_freq"

FAIRSEQ_ENCODER = {
    "feature_encoder/block_{i}": "feature_extractor.conv_layers.{i}.0",
    "feature_encoder/block_{i}/norm": "feature_extractor.conv_layers.{i}.2.1",
    "feature_norm": "layer_norm",
    "projection": "post_extract_proj",
    "mask_embedding": "mask_emb",
    "context_network/position": "encoder.pos_conv.0",
    "context_network/first_norm": "encoder.layer_norm",
    "context_network/last_norm": "encoder.layer_norm",
}
FAIRSEQ_GROUP_NORM = {"feature_encoder/block_{i}/norm": "feature_extractor.conv_layers.{i}.2"}
FAIRSEQ_TRANSFORMER = {
    f"{_LAYER}/attention/query": "encoder.layers.{layer}.self_attn.q_proj",
    f"{_LAYER}/attention/key": "encoder.layers.{layer}.self_attn.k_proj",
    f"{_LAYER}/attention/value": "encoder.layers.{layer}.self_attn.v_proj",
    f"{_LAYER}/attention/out": "encoder.layers.{layer}.self_attn.out_proj",
    f"{_LAYER}/attention_norm": "encoder.layers.{layer}.self_attn_layer_norm",
    f"{_LAYER}/feed_forward/up": "encoder.layers.{layer}.fc1",
    f"{_LAYER}/feed_forward/down": "encoder.layers.{layer}.fc2",
    f"{_LAYER}/output_norm": "encoder.layers.{layer}.final_layer_norm",
}
FAIRSEQ_CONFORMER = _CONFORMER | {
    f"{_LAYER}/first_ffn_norm": "encoder.layers.{layer}.ffn1.layer_norm",
    f"{_LAYER}/first_ffn/up": "encoder.layers.{layer}.ffn1.w_1",
    f"{_LAYER}/first_ffn/down": "encoder.layers.{layer}.ffn1.w_2",
    f"{_LAYER}/second_ffn_norm": "encoder.layers.{layer}.ffn2.layer_norm",
    f"{_LAYER}/second_ffn/up": "encoder.layers.{layer}.ffn2.w_1",
    f"{_LAYER}/second_ffn/down": "encoder.layers.{layer}.ffn2.w_2",
}
FAIRSEQ_HEADS = {
    "quantizer/logits": "quantizer.weight_proj",
    "quantizer/codebook": "quantizer.vars",
    "project_context": "final_proj",
    "project_quantized": "project_q",
    "head": "w2v_encoder.proj",
}
FAIRSEQ_ROTATIONS = "encoder.layers.{layer}.self_attn.rotary_emb.inv_freq"

TORCHAUDIO_ENCODER = {
    "feature_encoder/block_{i}": "feature_extractor.conv_layers.{i}.conv",
    "feature_encoder/block_{i}/norm": "feature_extractor.conv_layers.{i}.layer_norm",
    "feature_norm": "encoder.feature_projection.layer_norm",
    "projection": "encoder.feature_projection.projection",
    "context_network/position": "encoder.transformer.pos_conv_embed.conv",
    "context_network/first_norm": "encoder.transformer.layer_norm",
    "context_network/last_norm": "encoder.transformer.layer_norm",
}
TORCHAUDIO_TRANSFORMER = {
    f"{_LAYER}/attention/query": "encoder.transformer.layers.{layer}.attention.q_proj",
    f"{_LAYER}/attention/key": "encoder.transformer.layers.{layer}.attention.k_proj",
    f"{_LAYER}/attention/value": "encoder.transformer.layers.{layer}.attention.v_proj",
    f"{_LAYER}/attention/out": "encoder.transformer.layers.{layer}.attention.out_proj",
    f"{_LAYER}/attention_norm": "encoder.transformer.layers.{layer}.layer_norm",
    f"{_LAYER}/feed_forward/up": "encoder.transformer.layers.{layer}.feed_forward.intermediate_dense",
    f"{_LAYER}/feed_forward/down": "encoder.transformer.layers.{layer}.feed_forward.output_dense",
    f"{_LAYER}/output_norm": "encoder.transformer.layers.{layer}.final_layer_norm",
}
TORCHAUDIO_HEADS = {"head": "aux"}


def with_prefix(encoder: Names, prefix: str, heads: Names) -> Names:
    """The names of a whole model: the encoder's, all under `prefix`, and those of its head."""
    return {f"encoder/{ours}": prefix + theirs for ours, theirs in encoder.items()} | heads


def newer_spelling(name: str) -> str:
    """The name with a weight norm as torch spells it today."""
    for newer, older in OLDER_SPELLINGS.items():
        name = name.removesuffix(older) + newer if name.endswith(f".{older}") else name
    return name


def older_spelling(name: str) -> str:
    """The name with a weight norm as torch spelled it up to 1.13."""
    for newer, older in OLDER_SPELLINGS.items():
        name = name.removesuffix(newer) + older if name.endswith(f".{newer}") else name
    return name
