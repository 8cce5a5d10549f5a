"""What Python's own `re`, `json` and arithmetic make of random replies and calls.

    python3 make.py                      writes golden.json
    python3 make.py --show plans 17      prints the cases of a block, and what is expected of each

The Rust code does by hand what the published evaluation does with Python's regular expressions, its
`json` and its numbers. This script states the protocol a second time, in Python, from the facts alone,
so that both can be held against each other. It needs nothing but the standard library.

There are too many cases to be kept: python.rs makes the same ones from the same seeds and the same
grammar.json. golden.json has a checksum for each block of them, and some in full.
"""

import json
import re
import struct
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).parent
GRAMMAR = json.loads((HERE / "grammar.json").read_text("utf-8"))
SEED = 20260322
CASES = {"plans": 200_000, "replies": 60_000}
BLOCK = 500
FULL = 30  # cases of the first block that are kept in full


# --- the protocol

BLOCK_OF_CALLS = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
CALL = re.compile(
    r'\{\s*"tool":\s*"frame_select",\s*"(?:arguments|parameters)":\s*(\{.*?\})\s*\}', re.DOTALL
)
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
FALLBACK = re.compile(r"[Aa]nswer[\.:\s]\s*(\w)(\W.{,100}|)$", re.DOTALL)


def answer_of(reply):
    tagged = TAGGED.search(reply)
    if tagged and tagged.group(1).strip():
        return tagged.group(1).strip()
    fallback = FALLBACK.search(reply)
    return fallback.group(1) if fallback else None


def calls_of(reply):
    """The arguments of each call; None without a block."""
    block = BLOCK_OF_CALLS.search(reply)
    return CALL.findall(block.group(1).strip()) if block else None


def read(text):
    """The arguments of a call, or the name of the failure."""
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError:
        return "arguments_not_json"
    if "start_time" not in arguments or "end_time" not in arguments:
        return "no_start_or_end_time"
    if "nframes" not in arguments:
        return "no_nframes"
    if arguments.get("resize") is None:
        arguments["resize"] = 1.0
    return arguments


def patches(side, ratio):
    return max(1, round(side * ratio / 28))


def reduced(n, resize, width, height, budget, short_side):
    """Number of frames and ratio within the budget. Raises what Python raises."""
    if isinstance(n, (str, list)):
        raise TypeError  # Python would repeat it, at any length, and then fail to compare it

    def estimate():
        return n * patches(height, resize) * patches(width, resize)

    if estimate() > budget:
        resize = min(resize, min(1, short_side / min(width, height)))
        if estimate() > budget:
            r = (budget / estimate()) ** (1 / 3)
            n, resize = max(1, int(n * r)), resize * r
    return n, resize


def plan(case):
    """What is fetched for a call, or the name of the failure."""
    arguments = read(case["arguments"])
    if isinstance(arguments, str):
        return arguments
    width, height = case["width"], case["height"]
    try:
        n, resize = reduced(
            arguments["nframes"], arguments["resize"], width, height, case["budget"], case["side"]
        )
        patches(width, resize), patches(height, resize)
    except (TypeError, ValueError, OverflowError):
        return "exception"

    # The extraction does arithmetic on the times before the frames are counted.
    start, end = arguments["start_time"], arguments["end_time"]
    if not (isinstance(start, (int, float)) and isinstance(end, (int, float))):
        return "call_frame_select_failed"
    try:
        int(float(start)), int(float(end))
    except (ValueError, OverflowError):
        return "exception"  # no label can be counted from NaN or infinity
    if not isinstance(n, int) or n < 1:
        return "call_frame_select_failed"
    n = min(int(n), case["most"])  # the one rule that is not the published code's

    labels = []
    for i in (0, n // 2, n - 1):
        try:
            step = (end - start) / max(1, n - 1)
            seconds = int(start + i * step)
        except (ValueError, OverflowError):
            return "exception"  # the same for a window that no float is long enough for
        labels.append(f"{seconds // 60:02d}:{seconds % 60:02d}")
    if max(abs(start), abs(end)) >= 1e15:
        labels = ["-"] * 3  # beyond a float's whole numbers, where the order of operations tells
    first, last = max(start, 0), min(end, case["duration"])
    if last <= first:
        first, last = 0, case["duration"]
    rows, columns = patches(height, resize), patches(width, resize)
    times = [struct.pack(">d", float(time) + 0.0).hex() for time in (first, last)]
    return " ".join(
        [str(n), str(columns * 28), str(rows * 28), str(n * rows * columns), *times, *labels]
    )


def reading(case):
    """What is found in a reply: its answer, its calls, and whether each can be read."""
    reply = case["reply"]
    found = [json.dumps(answer_of(reply))]
    calls = calls_of(reply)
    for arguments in calls or []:
        verdict = read(arguments)
        found += [json.dumps(arguments), verdict if isinstance(verdict, str) else "ok"]
    return " ".join(found + ["none" if calls is None else str(len(calls))])


# --- the cases, as python.rs makes them too: keep both in step


class Random:
    """splitmix64"""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def below(self, end):
        return self.next() % end

    def one_in(self, many):
        return self.below(many) == 0

    def pick(self, name):
        return GRAMMAR[name][self.below(len(GRAMMAR[name]))]


def random_decimal(rng, end):
    whole = rng.below(end)
    digits = 1 + rng.below(6)
    fraction = rng.below(10**digits)
    return f"{whole}.{fraction:0{digits}d}"


def random_number(rng):
    kind = rng.below(4)
    if kind == 0:
        return str(rng.below(4000))
    if kind == 1:
        return random_decimal(rng, 4000)
    if kind == 2:
        return "-" + random_decimal(rng, 20)
    return rng.pick("numbers")


def random_arguments(rng):
    start = rng.below(600)
    end = start + rng.below(700)
    values = [
        ("start_time", random_decimal(rng, 600) if rng.one_in(3) else str(start)),
        ("end_time", random_decimal(rng, 900) if rng.one_in(3) else str(end)),
        ("nframes", str(1 + rng.below(300)) if rng.one_in(2) else rng.pick("counts")),
        ("resize", random_decimal(rng, 2) if rng.one_in(3) else rng.pick("ratios")),
    ]
    members = []
    for name, value in values:
        chance = rng.below(40)
        if chance == 0:
            continue
        if chance <= 2:
            value = random_number(rng)
        colon = rng.pick("colons") if rng.one_in(12) else ": "
        members.append(f'"{name}"{colon}{value}')
    if rng.one_in(6):
        members.append(rng.pick("extras"))
    if rng.one_in(60):
        depth = 1 + rng.below(100)
        members.append('"deep": ' + "[" * depth + "]" * depth)
    for i in range(len(members) - 1, 0, -1):
        j = rng.below(i + 1)
        members[i], members[j] = members[j], members[i]
    join = rng.pick("joins") if rng.one_in(12) else ", "
    return "{" + join.join(members) + "}"


def random_plan(rng):
    kind = rng.below(6)
    if kind == 0:
        # The estimate is a cube times the budget: the number of frames comes out nearly whole.
        columns, rows = 1 + rng.below(25), 1 + rng.below(25)
        cube, frames = (2 + rng.below(9)) ** 3, 1 + rng.below(12)
        arguments = f'{{"start_time": 0, "end_time": 60, "nframes": {cube * frames}}}'
        return {
            "arguments": arguments,
            "width": columns * 28,
            "height": rows * 28,
            "duration": 600.0,
            "budget": columns * rows * frames,
            "side": 720,
            "most": 12_000,
        }
    if kind == 1:
        # Many sides are odd multiples of half a patch.
        width, height = 14 * (1 + rng.below(280)), 14 * (1 + rng.below(160))
    elif kind == 2:
        width, height = 1 + rng.below(4096), 1 + rng.below(2304)
    else:
        width, height = rng.pick("sizes")
    duration = random_decimal(rng, 5000) if rng.one_in(2) else rng.pick("durations")
    return {
        "width": width,
        "height": height,
        "duration": float(duration),
        "budget": rng.pick("budgets"),
        "side": rng.pick("sides"),
        "most": 12_000,
        "arguments": random_arguments(rng),
    }


def random_call(rng):
    return (
        "{" + rng.pick("spaces") + rng.pick("tools") + rng.pick("spaces")
        + '"' + rng.pick("names") + '",' + rng.pick("spaces")
        + rng.pick("keys") + rng.pick("spaces") + random_arguments(rng)
        + rng.pick("spaces") + rng.pick("closes")
    )  # fmt: skip


def random_words(rng):
    return "".join(rng.pick("words") for _ in range(rng.below(15)))


def random_reply(rng):
    kind = rng.below(4)
    if kind == 0:
        text = rng.pick("leads") + rng.pick("asks") + rng.pick("separators") + rng.pick("letters")
        text += rng.pick("tails")
        text += rng.pick("fillers") * rng.pick("lengths")
        return {"reply": text + rng.pick("endings")}
    if kind == 1:
        return {"reply": random_words(rng)}
    if kind == 2:
        return {"reply": "<tool_call>" + random_words(rng) + "</tool_call>" + rng.pick("endings")}
    text = rng.pick("thoughts") + "<tool_call>"
    for _ in range(1 + rng.below(3)):
        text += rng.pick("spaces") + random_call(rng)
    text += rng.pick("spaces") + "</tool_call>"
    if rng.one_in(4):
        answer = rng.pick("spaces") + rng.pick("letters") + rng.pick("spaces")
        text += "<answer>" + answer + "</answer>"
    return {"reply": text + rng.pick("endings")}


KINDS = {"plans": (1, random_plan, plan), "replies": (2, random_reply, reading)}


def block(kind, number):
    """The cases of a block, each with what is expected."""
    stream, make, judge = KINDS[kind]
    rng = Random((SEED << 32) + (stream << 24) + number)
    for _ in range(BLOCK):
        case = make(rng)
        yield case, judge(case)


def shown(case, result):
    """A case in one line: the same text here and in python.rs."""
    if "reply" in case:
        return json.dumps(case["reply"]) + " => " + result
    limits = f"{case['width']}x{case['height']} {case['budget']} {case['side']} {case['most']} "
    duration = struct.pack(">d", case["duration"]).hex()
    return limits + duration + " " + json.dumps(case["arguments"]) + " => " + result


def checksum(kind, number):
    crc = 0
    for case, result in block(kind, number):
        crc = zlib.crc32((shown(case, result) + "\n").encode(), crc)
    return f"{crc:08x}"


def main():
    if sys.argv[1:2] == ["--show"]:
        for case, result in block(sys.argv[2], int(sys.argv[3])):
            print(shown(case, result))
        return
    golden = {"seed": SEED, "block": BLOCK}
    for kind, count in CASES.items():
        cases = [shown(*case) for _, case in zip(range(FULL), block(kind, 0))]
        sums = [checksum(kind, number) for number in range(count // BLOCK)]
        golden[kind] = {"first": cases, "checksums": " ".join(sums)}
    text = json.dumps(golden, indent=1)
    (HERE / "golden.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
