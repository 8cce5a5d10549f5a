"""Random Qwen2.5-VL models to measure with, and how fast other engines run them.

    bench_model.py make SHAPE DIR [--device cuda]     writes a model directory of random weights
    bench_model.py torch DIR [--device cuda] [--dtype bfloat16] [--threads 2]
    bench_model.py gguf DIR FILE [--type q4_0]        the decoder alone, for llama.cpp: f16, q8_0 or q4_0
    bench_model.py llama FILE [--threads 2]           llama.cpp by llama-cpp-python

`torch` and `llama` print one JSON object each, with the names of `eva-burn/benches/model.rs`.
"""

import argparse
import json
import time
from pathlib import Path

# The published sizes, and two small ones for processors.
SHAPES = {
    "0.3b": dict(hidden=896, inner=4864, layers=16, heads=14, kv=2, vocab=32768, tied=True,
                 depth=8, vhidden=640, vinner=1712, vheads=8, full=[3, 7]),
    "0.5b": dict(hidden=896, inner=4864, layers=24, heads=14, kv=2, vocab=151936, tied=True,
                 depth=8, vhidden=640, vinner=1712, vheads=8, full=[3, 7]),
    "3b": dict(hidden=2048, inner=11008, layers=36, heads=16, kv=2, vocab=151936, tied=True,
               depth=32, vhidden=1280, vinner=3420, vheads=16, full=[7, 15, 23, 31]),
    "7b": dict(hidden=3584, inner=18944, layers=28, heads=28, kv=4, vocab=152064, tied=False,
               depth=32, vhidden=1280, vinner=3420, vheads=16, full=[7, 15, 23, 31]),
}
VISION_START, VISION_END, IMAGE = 1001, 1002, 1003
SHARD_BYTES = 3 << 30


def config(s):
    """config.json in the published form."""
    head = s["hidden"] // s["heads"]
    sections = [head // 2 - 2 * (3 * head // 16)] + [3 * head // 16] * 2
    return dict(
        architectures=["Qwen2_5_VLForConditionalGeneration"], model_type="qwen2_5_vl",
        vocab_size=s["vocab"], hidden_size=s["hidden"], intermediate_size=s["inner"],
        num_hidden_layers=s["layers"], num_attention_heads=s["heads"], num_key_value_heads=s["kv"],
        max_position_embeddings=32768, max_window_layers=s["layers"], sliding_window=32768,
        use_sliding_window=False, rms_norm_eps=1e-6, rope_theta=1000000.0, hidden_act="silu",
        rope_scaling=dict(type="mrope", mrope_section=sections), tie_word_embeddings=s["tied"],
        attention_dropout=0.0, initializer_range=0.02, use_cache=True, torch_dtype="bfloat16",
        bos_token_id=1004, eos_token_id=1005, vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END, vision_token_id=1006, image_token_id=IMAGE, video_token_id=1007,
        vision_config=dict(
            depth=s["depth"], hidden_act="silu", hidden_size=s["vhidden"], intermediate_size=s["vinner"],
            num_heads=s["vheads"], in_chans=3, out_hidden_size=s["hidden"], patch_size=14,
            spatial_merge_size=2, spatial_patch_size=14, temporal_patch_size=2, window_size=112,
            fullatt_block_indexes=s["full"], tokens_per_second=2,
        ),
    )


def tensors(s):
    """Names and shapes in the published layout."""
    h, v = s["hidden"], s["vhidden"]
    kv = h // s["heads"] * s["kv"]
    yield "model.embed_tokens.weight", (s["vocab"], h)
    for i in range(s["layers"]):
        p = f"model.layers.{i}"
        yield f"{p}.input_layernorm.weight", (h,)
        yield f"{p}.post_attention_layernorm.weight", (h,)
        for name, out in [("q", h), ("k", kv), ("v", kv)]:
            yield f"{p}.self_attn.{name}_proj.weight", (out, h)
            yield f"{p}.self_attn.{name}_proj.bias", (out,)
        yield f"{p}.self_attn.o_proj.weight", (h, h)
        yield f"{p}.mlp.gate_proj.weight", (s["inner"], h)
        yield f"{p}.mlp.up_proj.weight", (s["inner"], h)
        yield f"{p}.mlp.down_proj.weight", (h, s["inner"])
    yield "model.norm.weight", (h,)
    if not s["tied"]:
        yield "lm_head.weight", (s["vocab"], h)
    yield "visual.patch_embed.proj.weight", (v, 3, 2, 14, 14)
    for i in range(s["depth"]):
        p = f"visual.blocks.{i}"
        yield f"{p}.norm1.weight", (v,)
        yield f"{p}.norm2.weight", (v,)
        for name, out, inner in [("attn.qkv", 3 * v, v), ("attn.proj", v, v), ("mlp.gate_proj", s["vinner"], v),
                                 ("mlp.up_proj", s["vinner"], v), ("mlp.down_proj", v, s["vinner"])]:
            yield f"{p}.{name}.weight", (out, inner)
            yield f"{p}.{name}.bias", (out,)
    yield "visual.merger.ln_q.weight", (v,)
    for name, out in [("0", 4 * v), ("2", h)]:
        yield f"visual.merger.mlp.{name}.weight", (out, 4 * v)
        yield f"visual.merger.mlp.{name}.bias", (out,)


def make(args):
    import torch
    from safetensors.torch import save_file

    s, out = SHAPES[args.shape], Path(args.dir)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    shards, shard, size = [], {}, 0
    for name, shape in tensors(s):
        if "norm" in name or "ln_q" in name:
            t = torch.ones(shape, device=args.device)
        elif name.endswith("bias"):
            t = torch.zeros(shape, device=args.device)
        else:
            t = torch.randn(shape, device=args.device) * 0.02
        t = t.to(torch.bfloat16).cpu()
        if size and size + t.nbytes > SHARD_BYTES:
            shards.append(shard)
            shard, size = {}, 0
        shard[name] = t
        size += t.nbytes
    shards.append(shard)
    index = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        save_file(shard, out / file, metadata={"format": "pt"})
        index |= {name: file for name in shard}
    total = sum(t.nbytes for shard in shards for t in shard.values())
    (out / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
    (out / "config.json").write_text(json.dumps(config(s), indent=1))


def text(n):
    return [(7919 * i + 13) % 1000 for i in range(n)]


def run_torch(args):
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    if args.threads:
        torch.set_num_threads(args.threads)
    start = time.perf_counter()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        args.dir, dtype=getattr(torch, args.dtype), attn_implementation="sdpa").to(args.device).eval()
    load = time.perf_counter() - start
    side = args.side // 14
    per = side * side // 4
    ids = sum(([VISION_START] + [IMAGE] * per + [VISION_END] for _ in range(args.pictures)), [])
    ids = torch.tensor([ids + text(args.prompt - len(ids))], device=args.device)
    pixels = torch.rand(args.pictures * side * side, 1176, device=args.device).to(model.dtype)
    grid = torch.tensor([[1, side, side]] * args.pictures, device=args.device)
    # Where a token stands does not change what it costs.
    places = torch.arange(ids.shape[1] + args.tokens + 1, device=args.device).expand(3, 1, -1)
    sync = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None

    def once():
        sync()
        start = time.perf_counter()
        kwargs = dict(pixel_values=pixels, image_grid_thw=grid) if args.pictures else {}
        out = model(input_ids=ids, position_ids=places[..., :ids.shape[1]], use_cache=True,
                    logits_to_keep=1, **kwargs)
        token = out.logits[0, -1].argmax().item()
        prefill = time.perf_counter() - start
        cache, at = out.past_key_values, ids.shape[1]
        start = time.perf_counter()
        for i in range(args.tokens):
            out = model(input_ids=torch.tensor([[token]], device=args.device), past_key_values=cache,
                        position_ids=places[..., at + i:at + i + 1], use_cache=True)
            token = out.logits[0, -1].argmax().item()
        return prefill, time.perf_counter() - start

    with torch.inference_mode():
        runs = [once() for _ in range(args.repeats)]
    print(json.dumps(dict(
        engine=f"torch {torch.__version__}", device=args.device, precision=args.dtype, load_s=load,
        first_prefill_s=runs[0][0], prefill_s=min(r[0] for r in runs), prompt_tokens=ids.shape[1],
        pictures=args.pictures, decode_tokens_per_s=args.tokens / min(r[1] for r in runs))))


def to_gguf(args):
    import gguf
    from safetensors import safe_open

    c = json.loads((Path(args.dir) / "config.json").read_text())
    index = json.loads((Path(args.dir) / "model.safetensors.index.json").read_text())["weight_map"]
    w = gguf.GGUFWriter(args.file, "qwen2")
    w.add_name("random")
    w.add_context_length(4096)
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_file_type(gguf.LlamaFileType["MOSTLY_" + args.type.upper()])
    # A vocabulary of that size, of which the text means nothing.
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list([f"t{i}" for i in range(c["vocab_size"])])
    w.add_token_types([1] * c["vocab_size"])
    w.add_token_merges(["t 0"])
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for name in index:
        if name.startswith("visual."):
            continue
        with safe_open(Path(args.dir) / index[name], "pt") as f:
            t = f.get_tensor(name).float()
        if name == "model.embed_tokens.weight":
            new = "token_embd.weight"
        elif name == "model.norm.weight":
            new = "output_norm.weight"
        elif name == "lm_head.weight":
            new = "output.weight"
        else:
            _, _, layer, rest = name.split(".", 3)
            rest, kind = rest.rsplit(".", 1)
            new = f"blk.{layer}.{names[rest]}.{kind}"
        if t.ndim == 1:
            w.add_tensor(new, t.numpy())
            continue
        # As ours: embedding and head have 8 bits at least.
        ends = new in ("token_embd.weight", "output.weight")
        kind = "q8_0" if args.type == "q4_0" and ends else args.type
        kind = gguf.GGMLQuantizationType[kind.upper()]
        w.add_tensor(new, gguf.quants.quantize(t.numpy(), kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


# Of a GGUF file, as `general.file_type` numbers them.
FILE_TYPES = {"1": "f16", "2": "q4_0", "7": "q8_0"}


def run_llama(args):
    import llama_cpp

    start = time.perf_counter()
    model = llama_cpp.Llama(args.file, n_ctx=4096, n_batch=2048, n_threads=args.threads,
                            n_threads_batch=args.threads, logits_all=False, verbose=False)
    load = time.perf_counter() - start

    def once():
        model.reset()
        start = time.perf_counter()
        model.eval(text(args.prompt))
        prefill = time.perf_counter() - start
        start = time.perf_counter()
        for token in text(args.tokens):
            model.eval([token])
        return prefill, time.perf_counter() - start

    runs = [once() for _ in range(args.repeats)]
    print(json.dumps(dict(
        engine=f"llama.cpp ({llama_cpp.__version__})", device="cpu",
        precision=FILE_TYPES.get(model.metadata["general.file_type"]), load_s=load,
        prefill_s=min(r[0] for r in runs), prompt_tokens=args.prompt, pictures=0,
        decode_tokens_per_s=args.tokens / min(r[1] for r in runs))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)

    def command(name, run, *positional):
        p = sub.add_parser(name)
        for argument in positional:
            p.add_argument(argument)
        p.add_argument("--device", default="cpu")
        p.add_argument("--dtype", default="float32")
        p.add_argument("--threads", type=int, default=2)
        p.add_argument("--prompt", type=int, default=1500)
        p.add_argument("--pictures", type=int, default=8)
        p.add_argument("--side", type=int, default=364)
        p.add_argument("--tokens", type=int, default=48)
        p.add_argument("--repeats", type=int, default=3)
        p.set_defaults(run=run)
        return p

    command("make", make, "shape", "dir")
    command("torch", run_torch, "dir")
    command("gguf", to_gguf, "dir", "file").add_argument("--type", choices=FILE_TYPES.values(), default="f16")
    command("llama", run_llama, "file")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
