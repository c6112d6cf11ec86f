"""The other side of train_step.py: transformers' model of the same network on PyTorch, as a worker. Knows no JAX."""

import contextlib
import math
import time

import numpy as np
import torch
import transformers
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices
from worker import job_on_standard_output, peak_resident, serve

GUMBEL_TEMPERATURE = 2.0


def main() -> None:
    """Builds the model, takes some steps to warm up, and serves."""
    job = job_on_standard_output()
    case = job["case"]
    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_num_threads(job["threads"])
    torch.set_float32_matmul_precision("high")
    device = torch.device(job["device"])
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("JAX has a GPU and PyTorch sees none; install PyTorch for CUDA")
    config = transformers.Wav2Vec2Config(**job["config"])
    if case["task"] == "pretraining":
        model = transformers.Wav2Vec2ForPreTraining(config)
        model.set_gumbel_temperature(GUMBEL_TEMPERATURE)
    else:
        model = transformers.Wav2Vec2ForCTC(config)
        model.freeze_feature_encoder()
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01, fused=True
    )
    dtype = getattr(torch, case["dtype"])
    precision = contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
    # On the CPU its users run it as it is.
    forward = torch.compile(model, dynamic=False) if device.type == "cuda" else model
    inputs, weight = inputs_of(job, model)

    def steps(count: int) -> None:
        for _ in range(count):
            on_device = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
            with precision:
                loss = forward(**on_device).loss / weight
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        # Fetching it waits for the device.
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"the loss of transformers is {loss.item()}")
        synchronise(device)

    def memory() -> dict[str, int]:
        return {"peak": torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_resident()}

    steps(job["warm_up"])
    about = {"peak_flops": peak_flops(device, dtype, job["product"])}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    serve(about, steps, memory)


def inputs_of(job: dict, model: transformers.PreTrainedModel) -> tuple[dict[str, np.ndarray], int]:
    """The arguments of the model, with masks and distractors of transformers' own helpers, and what its loss is a sum
    over. In its training script they are drawn in the data loader's processes, so that is not timed."""
    case, rng = job["case"], np.random.default_rng(0)
    waveform = rng.standard_normal((case["clips"], case["samples"]), np.float32)
    if case["task"] != "pretraining":
        labels = rng.integers(job["first_label"], model.config.vocab_size, (case["clips"], job["num_labels"]))
        return {"input_values": waveform, "labels": labels}, case["clips"]
    shape = (case["clips"], int(model._get_feat_extract_output_lengths(case["samples"])))
    config = model.config
    masked = _compute_mask_indices(
        shape, config.mask_time_prob, config.mask_time_length, min_masks=config.mask_time_min_masks
    )
    distractors = _sample_negative_indices(shape, config.num_negatives, mask_time_indices=masked)
    inputs = {"input_values": waveform, "mask_time_indices": masked, "sampled_negative_indices": distractors}
    return inputs, int(masked.sum())


def peak_flops(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a product of square matrices, the best of five."""
    x = torch.ones(size, size, dtype=dtype, device=device)
    times = []
    for _ in range(6):
        synchronise(device)
        start = time.perf_counter()
        x @ x
        synchronise(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
