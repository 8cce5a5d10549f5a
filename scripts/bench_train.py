"""How fast PyTorch trains a model directory and samples from it: what `eva-burn/benches/train.rs` and
`rollout.rs` do with it.

    bench_train.py step DIR [--threads 2] [--batch 16] [--steps 12]
    bench_train.py rollout DIR [--threads 2] [--conversations 64] [--together]

Plain torch and transformers. `step`: the whole batch in one forward and backward pass, AdamW in f32, the
gradient clipped as one vector, the vision tower frozen. `rollout`: a loop that reads a prompt and then token by
token with a KV cache, samples at temperature 1 and keeps the log-probabilities; one conversation after the
other, or with `--together` all of them as one batch of equal lengths. Each prints one JSON object with the
bench's names.
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


def load(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(
        args.dir, dtype=torch.float32, attn_implementation="sdpa")


def step(args):
    model = load(args).train()
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


@torch.inference_mode()
def sample(model, ids, count):
    """Seconds to read `ids` and to sample the first token, and then to sample the others."""
    start = time.perf_counter()
    places = torch.arange(ids.shape[1] + count).expand(3, len(ids), -1)
    cache, new, at, kept = None, ids, 0, []
    for written in range(count):
        out = model(input_ids=new, position_ids=places[..., at:at + new.shape[1]], past_key_values=cache,
                    use_cache=True, logits_to_keep=1)
        log_probs = out.logits[:, -1].log_softmax(-1)
        cache, at = out.past_key_values, at + new.shape[1]
        new = torch.multinomial(log_probs.exp(), 1)
        kept.append(log_probs.gather(1, new))
        if written == 0:
            read = time.perf_counter() - start
    return read, time.perf_counter() - start - read


def rollout(args):
    model = load(args).eval()
    prompt = [20 + 7919 * n % 600 for n in range(args.prompt)]
    rows = args.conversations if args.together else 1
    ids = torch.tensor([prompt] * rows)
    times = []
    for _ in range(args.repeats):
        runs = [sample(model, ids, args.tokens) for _ in range(args.conversations // rows)]
        times.append([sum(run[part] for run in runs) for part in (0, 1)])
    read, written = (min(run[part] for run in times) for part in (0, 1))
    print(json.dumps(dict(
        engine=f"torch {torch.__version__}" + (", one batch" if args.together else ", one after the other"),
        device="cpu", conversations=args.conversations, prompt_tokens=args.prompt, new_tokens=args.tokens,
        reading_s=read, tokens_per_s=args.conversations * (args.tokens - 1) / written,
        tokens_per_s_with_reading=args.conversations * args.tokens / min(sum(run) for run in times))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    for name, run in [("step", step), ("rollout", rollout)]:
        command = sub.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("dir")
        command.add_argument("--threads", type=int, default=2)
        if run is step:
            command.add_argument("--batch", type=int, default=16)
            command.add_argument("--tokens", type=int, default=300)
            command.add_argument("--targets", type=int, default=120)
            command.add_argument("--pictures", type=int, default=3)
            command.add_argument("--size", type=int, nargs=2, default=[112, 84])
            command.add_argument("--steps", type=int, default=12)
        else:
            command.add_argument("--conversations", type=int, default=64)
            command.add_argument("--prompt", type=int, default=300)
            command.add_argument("--tokens", type=int, default=100)
            command.add_argument("--repeats", type=int, default=2)
            command.add_argument("--together", action="store_true")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
