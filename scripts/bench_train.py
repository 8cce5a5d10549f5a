"""How fast PyTorch trains a model directory, on what `eva-burn/benches/train.rs` trains it on.

    bench_train.py DIR [--threads 2] [--batch 16] [--steps 12]

Plain torch and transformers: the whole batch in one forward and backward pass, AdamW in f32, the gradient
clipped as one vector, the vision tower frozen. Prints one JSON object with the bench's names.
"""

import argparse
import json
import resource
import time

import torch
from transformers import Qwen2_5_VLForConditionalGeneration


def batch(args, config):
    """As in train.rs: token n of the text of conversation i is 20 + (7919 n + 13 i) % 600."""
    width, height = args.size
    # Sides are rounded to whole merged patches.
    grid = [1, 2 * round(height / 28), 2 * round(width / 28)]
    per = grid[1] * grid[2] // 4
    images = [config.image_token_id] * per * args.pictures
    text = args.tokens - len(images)
    ids = [images + [20 + (7919 * n + 13 * i) % 600 for n in range(text)] for i in range(args.batch)]
    ids = torch.tensor(ids)
    labels = ids.clone()
    labels[:, :-args.targets] = -100
    count = args.batch * args.pictures
    pixels = torch.rand(count * grid[1] * grid[2], 1176)
    # Where a token stands does not change what it costs.
    places = torch.arange(args.tokens).expand(3, args.batch, -1)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=places,
                pixel_values=pixels, image_grid_thw=torch.tensor([grid] * count)), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--targets", type=int, default=120)
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=[112, 84])
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        args.dir, dtype=torch.float32, attn_implementation="sdpa").train()
    for name, parameter in model.named_parameters():
        if "visual" in name:
            parameter.requires_grad_(False)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
    inputs, labels = batch(args, model.config)
    # Scores of the learnt tokens alone, as train.rs computes them.
    rows = torch.arange(args.tokens - args.targets - 1, args.tokens - 1)
    targets = labels[:, -args.targets:].reshape(-1)
    seconds, losses = [], []
    for _ in range(max(args.steps, 3)):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        logits = model(**inputs, use_cache=False, logits_to_keep=rows).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    counted = sorted(seconds[2:])
    median = counted[len(counted) // 2]
    tokens = args.batch * args.tokens
    print(json.dumps(dict(
        engine=f"torch {torch.__version__}", device="cpu", threads=args.threads, batch=args.batch,
        tokens=tokens, targets=len(targets), step_s=median, best_step_s=counted[0],
        samples_per_s=args.batch / median, tokens_per_s=tokens / median, first_loss=losses[0],
        last_loss=losses[-1], peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)))


if __name__ == "__main__":
    main()
