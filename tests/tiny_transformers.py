"""Networks of transformers, drawn at random and so small that they run in milliseconds, in folders as it saves them."""

import json
import warnings

import numpy as np
import torch
import transformers

HEADS = ("Model", "ForPreTraining", "ForCTC", "ForSequenceClassification", "ForAudioFrameClassification", "ForXVector")
ARCHITECTURES = tuple(family + head for family in ("Wav2Vec2", "Wav2Vec2Conformer") for head in HEADS)
SYMBOLS = ("<s>", "</s>", "<unk>", "|", *"ETAON", "<pad>")
"""The blank comes last, as where a vocabulary was made before its padding."""


def config_of(architecture, seed, **changes):
    """A configuration in which all that a published network may choose is drawn at random."""
    rng = np.random.default_rng(seed)

    def pick(*options):
        return options[rng.integers(len(options))]

    layer_norm = pick(True, False)
    num_convs = pick(3, 4)
    drawn = {
        "hidden_size": pick(32, 48),
        "num_hidden_layers": pick(1, 2, 3),
        "num_attention_heads": pick(2, 4),
        "intermediate_size": pick(40, 64),
        "conv_dim": [pick(8, 12) for _ in range(num_convs)],
        "conv_kernel": [10, *(pick(2, 3) for _ in range(num_convs - 1))],
        "conv_stride": [5, *(pick(1, 2) for _ in range(num_convs - 1))],
        "feat_extract_norm": "layer" if layer_norm else "group",
        "conv_bias": layer_norm,
        "num_conv_pos_embeddings": pick(7, 8, 12),
        "num_conv_pos_embedding_groups": pick(2, 4),
        "mask_time_prob": (time := pick(0.0, 0.3)),
        "mask_time_length": pick(3, 10),
        "mask_time_min_masks": pick(0, 2),
        "mask_feature_prob": 0.0 if time == 0 else pick(0.0, 0.2),
        "mask_feature_length": pick(4, 10),
        "mask_feature_min_masks": pick(0, 1),
    }
    rates = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop")
    drawn |= {rate: float(rng.integers(8) / 16) for rate in rates}
    if "Conformer" in architecture:
        drawn |= {
            "position_embeddings_type": pick("relative", "rotary", None),
            "hidden_act": pick("swish", "gelu"),
            "conv_depthwise_kernel_size": pick(3, 5),
            "conformer_conv_dropout": float(rng.integers(8) / 16),
        }
    else:
        drawn["do_stable_layer_norm"] = pick(True, False)
        drawn["adapter_attn_dim"] = pick(6, None) if drawn["do_stable_layer_norm"] else None
    if "ForPreTraining" in architecture:
        drawn |= {"codevector_dim": 12, "proj_codevector_dim": 12, "num_codevector_groups": pick(1, 2, 3)}
        drawn |= {"num_codevectors_per_group": pick(5, 8), "feat_quantizer_dropout": float(rng.integers(8) / 16)}
    elif "ForCTC" in architecture:
        drawn |= {"vocab_size": len(SYMBOLS), "pad_token_id": SYMBOLS.index("<pad>"), "final_dropout": pick(0.0, 0.2)}
    elif "Model" not in architecture:
        num_labels = pick(2, 3, 5)
        drawn |= {"id2label": {number: f"class {number}" for number in range(num_labels)}}
        drawn |= {"label2id": {f"class {number}": number for number in range(num_labels)}}
        drawn |= {"use_weighted_layer_sum": pick(True, False)}
    if "Sequence" in architecture:
        drawn |= {"classifier_proj_size": pick(10, 20)}
    if "XVector" in architecture:
        drawn |= {"tdnn_dim": [12, 16, 20], "tdnn_kernel": [pick(3, 5), 3, 1], "tdnn_dilation": [1, pick(2, 3), 1]}
        drawn |= {"xvector_output_dim": pick(12, 14)}
    return getattr(transformers, architecture).config_class(**drawn | changes)


def network(architecture, config, seed=0):
    """With parameters in general position, batch norm's statistics and counters among them."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            scale = 0.7 / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1
            weight.add_(scale * torch.randn_like(weight))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.3, 3)
            elif name.endswith("num_batches_tracked"):
                buffer.fill_(int(torch.randint(10**6, ())))
    return model


def folder_of(model, folder, processor=True, **saving):
    """A folder as transformers saves one; of a network that writes text, with its processor."""
    model.save_pretrained(folder, **saving)
    if processor and hasattr(model, "lm_head"):
        processor_of(folder).save_pretrained(folder)
    return folder


def processor_of(folder, symbols=SYMBOLS, do_normalize=True, **tokenizer):
    """A processor whose vocabulary is written into the folder."""
    vocabulary = write_json(folder / "vocab.json", {symbol: number for number, symbol in enumerate(symbols)})
    made = transformers.Wav2Vec2CTCTokenizer(str(vocabulary), **tokenizer)
    return transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize), made)


def write_json(file, content):
    """The file with that in it."""
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def waveforms(*lengths, seed=0):
    """Noise that grows louder, around another mean than 0."""
    rng = np.random.default_rng(seed)
    return [(0.2 + rng.normal(size=n) * np.linspace(0.5, 2, n)).astype(np.float32) for n in lengths]
