"""Writes cases.json: what Python's own `re`, `json` and arithmetic make of random replies and calls.

    python3 make.py > cases.json

The Rust code does by hand what the published evaluation does with Python regular expressions and
Python numbers. This script states the protocol a second time, in Python, so that both can be held
against each other. Only the standard library is used and the seed is fixed.
"""

import json
import random
import re

rng = random.Random(20260322)

FALLBACK = re.compile(r"[Aa]nswer[\.:\s]\s*(\w)(\W.{,100}|)$", re.DOTALL)
TAGGED = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
BLOCK = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
CALL = re.compile(
    r'{\s*"tool":\s*"frame_select",\s*"(?:arguments|parameters)":\s*({.*?})\s*}', re.DOTALL
)


def answer_of(reply):
    tagged = TAGGED.search(reply)
    text = tagged.group(1).strip() if tagged else ""
    if not text:
        fallback = FALLBACK.search(reply)
        text = fallback.group(1) if fallback else ""
    return text or None


def calls_of(reply):
    block = BLOCK.search(reply)
    return CALL.findall(block.group(1).strip()) if block else None


def plan(arguments, width, height, duration, budget=12000, side=720, most=12000):
    """A dict with what is fetched, or the name of the failure."""
    try:
        call = json.loads(arguments)
    except json.JSONDecodeError:
        return "arguments_not_json"
    if "start_time" not in call or "end_time" not in call:
        return "no_start_or_end_time"
    if "nframes" not in call:
        return "no_nframes"
    n, resize = call["nframes"], call.get("resize")
    resize = 1.0 if resize is None else resize

    def patches(pixels, ratio):
        return max(1, round(pixels * ratio / 28))

    def estimate(n, ratio):
        return n * patches(height, ratio) * patches(width, ratio)

    try:
        tokens = estimate(n, resize)
        if tokens > budget:
            resize = min(resize, min(1.0, side / min(width, height)))
            tokens = estimate(n, resize)
            if tokens > budget:
                ratio = (budget / tokens) ** (1 / 3)
                n = max(1, int(n * ratio))
                resize = resize * ratio
    except (TypeError, ValueError, OverflowError):
        return "exception"

    start, end = call["start_time"], call["end_time"]
    if not isinstance(start, (int, float)) or not isinstance(end, (int, float)):
        return "call_frame_select_failed"
    try:
        int(float(start)), int(float(end))
    except (ValueError, OverflowError):
        return "exception"  # the labels can't be counted
    if not isinstance(n, int) or n < 1:
        return "call_frame_select_failed"
    n = min(int(n), most)  # the one rule that is ours
    step = (end - start) / max(1, n - 1)
    seconds = [int(start + i * step) for i in (0, n // 2, n - 1)]
    labels = [f"{s // 60:02d}:{s % 60:02d}" for s in seconds]
    first, last = max(start, 0.0), min(end, duration)
    if last <= first:
        first, last = 0.0, duration
    return {
        "nframes": n,
        "width": patches(width, resize) * 28,
        "height": patches(height, resize) * 28,
        "tokens": estimate(n, resize),
        "start": repr(float(first)),
        "end": repr(float(last)),
        "labels": labels,
    }


WORDS = [
    "<answer>", "</answer>", "<tool_call>", "</tool_call>", "Answer", "answer", "nswer", "ANSWER",
    ":", ".", " ", "\n", "\t", "\u00a0", "\u3000", "\x1c", "\u0085", "_", "B", "b", "7", "é", "好",
    "\u0915", "\u093e", "\u0301", "²", "\u24b7", "(", ")", "x" * 99, "x" * 100, " " * 99, "y" * 98,
    '{"tool": "frame_select", "arguments": {"nframes": 8}}', '{"tool":"frame_select",',
    '{ "tool": "frame_select",\n"parameters": {"a": {}}}', '{"tool" : "frame_select",',
    '{"tool": "zoom", "arguments": {"nframes": 8}}', '"arguments": {', "}", "{", "} }", "}\n}",
    '"parameters":{}', '"', ",",
]


def random_reply():
    if rng.random() < 0.4:
        tail = rng.choice(["", ".", ")", "\n", " ", "\u0301", "\u093e"])
        tail += rng.choice("ab \n") * rng.choice([0, 1, 50, 99, 100, 101, 102])
        tail += rng.choice(["", "", "\n", "\n\n", " "])
        return (
            rng.choice(["", "The ", "answer. ", "Answer:\n"])
            + rng.choice(["answer", "Answer", "Answers", "ANSWER"])
            + rng.choice([":", ".", " ", "\n", "", "::", ": ", ":\n \u2003", "\x1f"])
            + rng.choice(["B", "BC", "b", "7", "_", "é", "好", "\u0915", "-", "", "²", "\u24b7"])
            + tail
        )
    reply = "".join(rng.choice(WORDS) for _ in range(rng.randint(0, 14)))
    return f"<tool_call>{reply}</tool_call>" if rng.random() < 0.5 else reply


def random_number():
    return rng.choice(
        [
            lambda: str(rng.randint(-10, 4000)),
            lambda: str(round(rng.uniform(-10, 4000), rng.randint(1, 6))),
            lambda: str(rng.randint(1, 128)),
            lambda: rng.choice(["0", "1", "-1", "1.0", "1e2", "true", "false", "1e300", "NaN"]),
            lambda: rng.choice(["Infinity", "-Infinity", "1e999", "9" * 400, "1" + "0" * 18]),
            lambda: rng.choice(["null", '"12"', "[]", "{}", "1.", "01", ".5", "+1", "None"]),
        ]
    )()


def random_arguments():
    length = rng.choice([30, 600, 5000])
    start = rng.randint(0, length)
    values = {
        "start_time": rng.choice([str(start), str(start + rng.random())]),
        "end_time": str(rng.choice([length, start + rng.randint(-5, length)])),
        "nframes": str(rng.choice([1, 2, 8, 16, 64, 128, 500, 5000, rng.randint(1, 300)])),
        "resize": rng.choice(["0.1", "0.25", "0.4", "0.5", "1", "1.0", "2", "null", "0.05", "3.5"]),
    }
    for name in list(values):
        chance = rng.random()
        if chance < 0.03:
            del values[name]
        elif chance < 0.15:
            values[name] = random_number()
    if rng.random() < 0.1:
        values["note"] = rng.choice(['"}{"', "[1, {}]", "null", '"\\u00e9"', "'no'"])
    members = [f'"{name}": {value}' for name, value in values.items()]
    rng.shuffle(members)
    return "{" + ", ".join(members) + "}"


def main():
    sizes = [
        (1280, 720), (1920, 1080), (3840, 2160), (640, 360), (854, 480), (720, 1280), (28, 28),
        (42, 70), (14, 98), (320, 240), (1, 1), (5000, 300),
    ]
    replies, plain = [], 0
    while len(replies) < 450:
        reply = random_reply()
        if answer_of(reply) is None and not calls_of(reply):
            plain += 1
            if plain % 8:
                continue  # most random texts say nothing: keep some of them
        replies.append(reply)
    plans = []
    for _ in range(700):
        width, height = rng.choice(sizes)
        duration = rng.choice([30.0, 89.96, 600.0, 4503.2, 0.04])
        arguments = random_arguments()
        plans.append(
            {
                "width": width,
                "height": height,
                "duration": duration,
                "arguments": arguments,
                "result": plan(arguments, width, height, duration),
            }
        )
    cases = {
        "replies": [
            {"reply": reply, "answer": answer_of(reply), "calls": calls_of(reply)}
            for reply in replies
        ],
        "plans": plans,
    }
    # One case a line.
    lines = [f'"{kind}": [\n' + ",\n".join(map(json.dumps, cases[kind])) + "\n]" for kind in cases]
    print("{" + ",\n".join(lines) + "}")


if __name__ == "__main__":
    main()
