#!/usr/bin/env python3
"""Writes episodes.json and scores.json, what the published evaluation would do with scripted replies.

An independent second implementation of the protocol and of the scorer, in the language of the published
evaluation, so that regular expressions, rounding, JSON and white space are Python's own. It shares no
code with the crates. Run it in this folder, `python3 make.py`; it needs nothing but the standard library,
and writes the same files every time.

An episode is a video's numbers, a question, and the replies that the model gives. What is expected of it:
the messages that are not the model's own (a picture is written as `<index@WIDTHxHEIGHT>` where it
stands), each request for frames, and the record's fields. Texts longer than LONG are kept as their
beginning and a hash.

Two things are ours and not the published code's. After an exception it reports zeros; here stands what
was spent until then, and the frames of the turn that raised are never asked for. And times count from
the first displayed frame, also where a stream begins later.
"""

import json
import math
import random
import re

LONG = 72
SYSTEM = "Use Frame Select Tool to Anlysis the video and generate an answer to the question."

# name: (length in seconds, frames per second, number of frames, width, height).
VIDEOS = {
    "clip": (60.0, 25.0, 1500, 1280, 720),
    "long": (7200.0, 30000 / 1001, 215784, 1920, 1080),
    "tall": (90.5, 30.0, 2715, 720, 1280),
    "uhd": (300.0, 24.0, 7200, 3840, 2160),
    "small": (12.0, 10.0, 120, 160, 120),
    "sd": (30.0, 15.0, 450, 854, 480),
    "blink": (0.4, 25.0, 10, 320, 240),
    "still": (0.04, 25.0, 1, 56, 56),
    "odd": (33.37, 23.976, 800, 426, 318),
}


class Failed(Exception):
    """The extraction of frames failed."""


# --- The model's reply -------------------------------------------------------------------------------

def between(opening, closing, text):
    """What stands between the first pair of tags, or None."""
    found = re.search(re.escape(opening) + "(.*?)" + re.escape(closing), text, re.S)
    return found and found.group(1).strip()


LOOSE_ANSWER = re.compile(r"[Aa]nswer[\.:\s]\s*(\w)(\W.{,100}|)$", re.S)


def answer_in(reply):
    answer = between("<answer>", "</answer>", reply)
    if not answer:
        loose = LOOSE_ANSWER.search(reply)
        answer = loose.group(1) if loose else ""
    return answer


# One call: the tool's name first, its arguments second, as the published weights write it.
NAME = r'"tool":\s*"frame_select"'
ARGUMENTS = r'"(?:arguments|parameters)":\s*(\{.*?\})'
CALL = re.compile(r"\{\s*" + NAME + r",\s*" + ARGUMENTS + r"\s*\}", re.S)


# --- The budget and the frames -----------------------------------------------------------------------

def cells(side, resize):
    return max(1, round(side * resize / 28))


def estimate(video, nframes, resize):
    width, height = video[3:]
    return int(nframes) * cells(height, resize) * cells(width, resize)


def reduce(video, nframes, resize, budget):
    """The count and the ratio that are asked for, and their estimate."""
    cost = estimate(video, nframes, resize)
    if cost > budget:
        resize = min(resize, min(1, 720 / min(video[3:])))
        cost = estimate(video, nframes, resize)
        if cost > budget:
            ratio = (budget / cost) ** (1 / 3)
            nframes = max(1, int(nframes * ratio))
            resize = resize * ratio
            cost = estimate(video, nframes, resize)
    return nframes, resize, cost


def linspace(first, last, count):
    step = (last - first) / (count - 1)
    return [first + i * step for i in range(count - 1)] + [last]


def frames_of(video, start, end, nframes):
    """The indices of the frames that a call shows."""
    length, fps, count = video[:3]
    start, end = max(start, 0.0), min(end, length)
    if end <= start:
        start, end = 0.0, length
    if nframes == 1:
        times = [(start + end) / 2]
    else:
        eps = min(1e-3, (end - start) / (4 * nframes))
        times = linspace(start, max(start, end - eps), nframes)
    return [min(max(round(t * fps), 0), count - 1) for t in times]


def label(start, end, i, count):
    second = int(start + i * ((end - start) / max(1, count - 1)))
    return f"{second // 60:02d}:{second % 60:02d}"


# --- An episode --------------------------------------------------------------------------------------

def play(episode):
    video = VIDEOS[episode["video"]]
    budget, turns = episode.get("budget", 12000), episode.get("turns", 6)
    fails = episode.get("fails", [])
    question = episode["question"].strip()
    messages, requests = [], []
    if "system" in episode:
        messages.append(["system", episode["system"]])
    else:
        messages.append(["system", SYSTEM])
    length = int(max(video[0] - 0.5, 1))
    points = min(video[3:])
    messages.append(["user", f"Video Length: {length} seconds. Original video resolution: {points}p. {question}"])

    out = {"stop": "max_turns_exceeded", "answer": "", "rounds": 0, "total": 0, "estimated": 0}
    for turn in range(turns):
        reply = episode["replies"][turn]
        if isinstance(reply, dict):
            out["stop"] = reply["fails"]
            break
        out["rounds"] += 1
        out["total"] = sum(usage(turn))
        messages.append(["assistant", reply])
        answer = answer_in(reply)
        if answer:
            out["stop"], out["answer"] = "answer_found", answer
            break
        block = between("<tool_call>", "</tool_call>", reply)
        if block is None:
            out["stop"] = "no_answer_no_tool_call"
            break
        calls = CALL.findall(block)
        if not calls:
            out["stop"] = "no_valid_tool_call"
            break

        shown, errors, before = [], [], len(requests)
        try:
            for text in calls:
                call(video, text, budget, fails, requests, shown, errors, out)
        except (TypeError, ValueError):
            out["stop"] = "exception"
            del requests[before:]
            break
        if errors and len(errors) == len(calls):
            out["stop"] = "; ".join(errors)
            break
        content = "<tool_response>"
        for i, (stamp, index, size) in enumerate(shown):
            content += ("\n" if i else "") + f"Frame {i} at [{stamp}]: <{index}@{size}>"
        content += "\nIf more information is needed, call the frame selection tool again.\n\n"
        content += f"Question: {question}</tool_response>"
        messages.append(["tool", content])
    out["messages"] = [[role, brief(text)] for role, text in messages if role != "assistant"]
    out["requests"] = requests
    return out


def call(video, text, budget, fails, requests, shown, errors, out):
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError:
        errors.append("arguments_not_json")
        return
    if "start_time" not in arguments or "end_time" not in arguments:
        errors.append("no_start_or_end_time")
        return
    if "nframes" not in arguments:
        errors.append("no_nframes")
        return
    start, end, nframes = (arguments[key] for key in ("start_time", "end_time", "nframes"))
    resize = arguments.get("resize")
    resize = 1.0 if resize is None else resize
    # The budget is arithmetic, which raises on what is no number.
    if not is_number(nframes) or not is_number(resize):
        raise TypeError
    nframes, resize, cost = reduce(video, nframes, resize, budget)
    out["estimated"] += cost
    try:
        # The rest is read by the tool, which is a program of its own and can only fail.
        if not is_number(start) or not is_number(end) or not isinstance(nframes, int):
            raise Failed
        if nframes < 1:
            raise Failed
        if len(requests) in fails:
            requests.append("fails")
            raise Failed
        indices = frames_of(video, start, end, nframes)
    except Failed:
        errors.append("call_frame_select_failed")
        return
    width, height = (cells(side, resize) * 28 for side in video[3:])
    size = f"{width}x{height}"
    requests.append([size, len(indices), brief(" ".join(map(str, indices)))])
    for i, index in enumerate(indices):
        shown.append((label(start, end, i, len(indices)), index, size))


def is_number(value):
    return isinstance(value, (int, float))


def usage(turn):
    """What a turn cost by the script: tokens of the prompt and of the reply."""
    return 100 + 37 * turn, 20 + turn


def brief(text):
    if len(text) <= LONG:
        return text
    return f"{text[:48]}...#{fnv(text):016x}"


def fnv(text):
    """FNV-1a, 64 bits, of the text in UTF-8."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


# --- The scripts -------------------------------------------------------------------------------------

QUESTION = "What colour is the bird?\nA. red\nB. blue"


def select(start, end, nframes, resize="", key="arguments"):
    """A call, its values written as they are given."""
    ratio = "" if resize == "" else f', "resize": {resize}'
    return (f'{{"tool": "frame_select", "{key}": {{"start_time": {start}, "end_time": {end}, '
            f'"nframes": {nframes}{ratio}}}}}')


def ask(*calls):
    return "<tool_call>" + "\n".join(calls) + "</tool_call>"


DONE = "<answer>A</answer>"


def scripted():
    """The cases that were thought of, each with its name."""
    def one(name, *replies, video="clip", question=QUESTION, **more):
        yield {"name": name, "video": video, "question": question, "replies": list(replies), **more}

    # Answers.
    answers = {
        "plain": "<answer>A</answer>",
        "with spaces and newlines": "I saw it.\n<answer> \n B \t</answer> done",
        "of words": "<answer>the blue one,\nsecond from left</answer>",
        "in unicode": "<answer>\u3000答案是 Б – ß\u00a0</answer>",
        "with a separator that only Python trims": "<answer>\x1cC\x1f</answer>",
        "first of two": "<answer>A</answer><answer>B</answer>",
        "first is empty, then the loose form": "<answer> </answer> so the answer: C",
        "first is empty, the second pair isn't read": "<answer></answer><answer>B</answer>",
        "loose with colon": "The answer: D",
        "loose with full stop after": "Answer: B.",
        "loose with a dot": "my answer.C",
        "loose with newline": "Answer\n\n  A\n",
        "loose of a word is none": "The answer: blue",
        "loose, exactly a hundred more": "answer: A" + " " + "x" * 100,
        "loose, one too many": "answer: A" + " " + "x" * 101,
        "loose, the last of several": "answer: no. The answer is hard. Answer: E)",
        "loose, with a digit": "answer 3",
        "loose, with an underscore": "answer: _!",
        "loose, with a wide letter": "Answer: 甲。",
        "loose, capitals don't count": "ANSWER: A",
        "loose, with a combining mark": "answer: é is it",
        "unclosed": "<answer>A",
        "closed before it opens": "</answer>A<answer>",
        "wins over a call": ask(select(0, 10, 4)) + DONE,
        "inside a call": ask(DONE + select(0, 10, 4)),
        "holds a call": "<answer>" + ask(select(0, 1, 2)) + "</answer>",
        "nested": "<answer><answer>A</answer></answer>",
        "in other capitals": "<Answer>A</Answer>",
        "empty reply": "",
        "only white space": " \n\t ",
        "nul": "<answer>\x00</answer>",
    }
    for name, reply in answers.items():
        yield from one("answer: " + name, reply)

    # What is no call.
    calls = {
        "empty block": "<tool_call></tool_call>",
        "unclosed block": "<tool_call>" + select(0, 10, 4),
        "another tool": '<tool_call>{"tool": "zoom", "arguments": {"x": 1}}</tool_call>',
        "name for tool": '<tool_call>{"name": "frame_select", "arguments": {"start_time": 0}}</tool_call>',
        "arguments before the tool":
            '<tool_call>{"arguments": {"start_time": 0, "end_time": 1, "nframes": 2}, "tool": "frame_select"}</tool_call>',
        "outside of the block": "<tool_call></tool_call>" + select(0, 10, 4),
        "in the second block": "<tool_call>none</tool_call>" + ask(select(0, 10, 4)),
        "space before a colon": '<tool_call>{"tool" : "frame_select", "arguments": {"start_time": 0}}</tool_call>',
        "extra key between": '<tool_call>{"tool": "frame_select", "id": 1, "arguments": {"nframes": 1}}</tool_call>',
        "extra key after": '<tool_call>{"tool": "frame_select", "arguments": {"nframes": 1}, "id": 1}</tool_call>',
        "a list": '<tool_call>{"tool": "frame_select", "arguments": [0, 10, 4]}</tool_call>',
        "only words": "Let me look again at the bird.",
    }
    for name, reply in calls.items():
        yield from one("no call: " + name, reply)

    # Arguments.
    def arguments(text):
        return '<tool_call>{"tool": "frame_select", "arguments": {' + text + "}}</tool_call>"
    wrong = {
        "not json, single quotes": "'start_time': 0",
        "not json, trailing comma": '"start_time": 0, "end_time": 10, "nframes": 4,',
        "not json, a comment": '"start_time": 0, /* all */ "end_time": 10, "nframes": 4',
        "not json, a leading zero": '"start_time": 00, "end_time": 10, "nframes": 4',
        "not json, a bare word": '"start_time": start, "end_time": 10, "nframes": 4',
        "not json, a bare minute": '"start_time": 0:10, "end_time": 10, "nframes": 4',
        "not json, a newline in a string": '"start_time": 0, "end_time": 10, "nframes": 4, "why": "a\nb"',
        "not json, an object inside": '"start_time": 0, "end_time": 10, "nframes": 4, "more": {"a": 1}',
        "not json, a brace in a string": '"start_time": 0, "end_time": 10, "nframes": 4, "why": "a}} b"',
        "not json, a plus sign": '"start_time": +1, "end_time": 10, "nframes": 4',
        "not json, a dot at the end": '"start_time": 1., "end_time": 10, "nframes": 4',
        "empty": "",
        "no start": '"end_time": 10, "nframes": 4',
        "no end": '"start_time": 1, "nframes": 4',
        "no times": '"nframes": 4',
        "no nframes": '"start_time": 1, "end_time": 10',
        "no nframes but fps": '"start_time": 1, "end_time": 10, "fps": 2, "resize": 0.5',
        "neither": '"resize": 0.5',
    }
    for name, text in wrong.items():
        yield from one("arguments: " + name, arguments(text))
    odd = {
        "extra keys": '"start_time": 0, "end_time": 10, "nframes": 4, "why": "to see", "n": null',
        "a key twice, the last counts": '"start_time": 9, "start_time": 2, "end_time": 10, "nframes": 4',
        "in another order": '"resize": 0.5, "nframes": 3, "end_time": 20, "start_time": 10',
        "white space everywhere": ' \n "start_time" : 0 ,\t"end_time" :10 , "nframes": 4 \n',
        "exponents": '"start_time": 1e1, "end_time": 2.5E+1, "nframes": 4',
        "escaped keys": '"start\\u005ftime": 1, "end_time": 10, "nframes": 4',
        "a closing brace behind": '"start_time": 0, "end_time": 10, "nframes": 4}',
        "resize null": '"start_time": 0, "end_time": 10, "nframes": 2, "resize": null',
        "resize missing": '"start_time": 0, "end_time": 10, "nframes": 2',
        "resize one": '"start_time": 0, "end_time": 10, "nframes": 2, "resize": 1',
        "resize tiny": '"start_time": 0, "end_time": 10, "nframes": 2, "resize": 0.0001',
        "resize zero": '"start_time": 0, "end_time": 10, "nframes": 2, "resize": 0',
        "resize two": '"start_time": 0, "end_time": 10, "nframes": 2, "resize": 2',
    }
    for name, text in odd.items():
        yield from one("arguments: " + name, arguments(text), DONE)
    yield from one("arguments: parameters for arguments", ask(select(0, 10, 4, 0.5, "parameters")), DONE)

    # Counts.
    for count in ("0", "1", "2", "3", "4.0", "4.9", "0.5", "1e1", "500", "5000", "100000", "1e6"):
        yield from one(f"nframes {count}", ask(select(5, 15, count, 0.1)), DONE)
        yield from one(f"nframes {count}, long", ask(select(3000, 6000, count, 0.3)), DONE, video="long")
    for value in ('"many"', "null", "[4]", "{}"):
        yield from one(f"nframes {value}", ask(select(0, 10, value, 0.1)), DONE)
        yield from one(f"start {value}", ask(select(value, 10, 4, 0.1)), DONE)
        yield from one(f"end {value}", ask(select(0, value, 4, 0.1)), DONE)
        if value != "null":
            yield from one(f"resize {value}", ask(select(0, 10, 4, value)), DONE)

    # Windows.
    windows = {
        "the whole": (0, 60), "beyond the end": (50, 100), "before the begin": (-10, 5), "all before": (-20, -10),
        "all after": (100, 200), "backwards": (30, 10), "empty": (7, 7), "fractions": (1.25, 2.75),
        "narrow": (10, 10.01), "negative to after": (-5, 500), "at the end": (60, 70), "zero": (0, 0),
        "a hair before the begin": (-0.4, 3), "minus ninety": (-90, 30), "minus a minute": (-60, 0),
        "thirds": (0, 10.1), "far": (1e6, 2e6),
    }
    for name, (start, end) in windows.items():
        for count in (1, 5):
            yield from one(f"window {name}, {count}", ask(select(start, end, count, 0.1)), DONE)
    for video in ("sd", "blink", "still", "odd", "small", "tall"):
        for start, end, count in ((0, 2, 5), (0, 1000, 9), (3, 3.5, 4), (0, 0.2, 1)):
            yield from one(f"window {start} to {end} of {video}, {count}",
                           ask(select(start, end, count, 0.5)), DONE, video=video)
    yield from one("label past an hour", ask(select(4500, 4563, 4, 0.1)), DONE, video="long")
    yield from one("label past ninety-nine minutes", ask(select(5990, 6070, 5, 0.05)), DONE, video="long")
    yield from one("label past the end, in hours", ask(select(100000, 100100, 3, 0.1)), DONE, video="long")

    # The budget.
    for budget in (1, 300, 12000):
        for video in VIDEOS:
            for count, ratio in ((16, 1.0), (128, 0.25)):
                yield from one(f"budget {budget} of {video}, {count} at {ratio}",
                               ask(select(0, 30, count, ratio)), DONE, video=video, budget=budget)
    yield from one("budget: exactly kept", ask(select(0, 30, 2, 0.7)), DONE, budget=2 * 18 * 32)
    yield from one("budget: one less", ask(select(0, 30, 2, 0.7)), DONE, budget=2 * 18 * 32 - 1)
    yield from one("budget: the first stage is enough", ask(select(0, 30, 10, 1.0)), DONE, video="uhd", budget=12000)

    # Several calls in one turn.
    yield from one("two calls", ask(select(0, 10, 2, 0.1), select(20, 30, 3, 0.2)), DONE)
    yield from one("three calls, one not json", ask(select(0, 10, 2, 0.1), select("x", 30, 3), select(5, 6, 1, 0.3)), DONE)
    yield from one("two calls, one without nframes",
                   ask('{"tool": "frame_select", "arguments": {"start_time": 1, "end_time": 2}}', select(0, 10, 2)), DONE)
    yield from one("two calls, both wrong differently",
                   ask('{"tool": "frame_select", "arguments": {"start_time": 1, "end_time": 2}}', select("x", 10, 2)))
    yield from one("three calls, all wrong",
                   ask('{"tool": "frame_select", "arguments": {}}', select("x", 10, 2),
                       '{"tool": "frame_select", "arguments": {"start_time": 1, "end_time": 2}}'))
    yield from one("eight calls", ask(*(select(5 * i, 5 * i + 5, 2, 0.1) for i in range(8))), DONE)
    yield from one("calls as a list", "<tool_call>[" + select(0, 5, 2, 0.1) + ", " + select(5, 9, 2, 0.1) + "]</tool_call>", DONE)
    yield from one("only the first block counts", ask(select(0, 10, 2, 0.1)) + ask(select(20, 30, 3, 0.1)), DONE)
    yield from one("calls between words", "<tool_call>First " + select(0, 10, 2, 0.1) + " and then " + select(9, 10, 1, 0.1) + ".</tool_call>", DONE)
    yield from one("each call has its budget", ask(select(0, 10, 64), select(20, 30, 64), select(40, 50, 64)), DONE)

    # A failing extraction.
    yield from one("extraction fails", ask(select(0, 10, 2, 0.1)), fails=[0])
    yield from one("both extractions fail", ask(select(0, 10, 2, 0.1), select(0, 5, 2, 0.1)), fails=[0, 1])
    yield from one("one extraction of two fails", ask(select(0, 10, 2, 0.1), select(0, 5, 3, 0.1)), DONE, fails=[0])
    yield from one("the second extraction fails", ask(select(0, 10, 2, 0.1), select(0, 5, 3, 0.1)), DONE, fails=[1])
    yield from one("the second turn's extraction fails", ask(select(0, 10, 2, 0.1)), ask(select(0, 5, 3, 0.1)), fails=[1])
    yield from one("a wrong call and a failing one", ask(select("x", 10, 2), select(0, 5, 3, 0.1)), fails=[0])

    # Turns.
    look = ask(select(0, 10, 2, 0.1))
    for turns in (1, 2, 6, 8):
        yield from one(f"{turns} turns without an answer", *[look] * turns, turns=turns)
        yield from one(f"the answer in the last of {turns} turns", *[look] * (turns - 1), DONE, turns=turns)
    yield from one("six turns by default", *[look] * 6)
    yield from one("words in the third turn", look, look, "I give up.")
    yield from one("a broken block in the second turn", look, "<tool_call>{}</tool_call>")
    yield from one("a wrong call in the fourth turn", look, look, look, ask(select(0, "x", 2)))

    # Failures of the model.
    for stop in ("exception", "openai_bad_request"):
        yield from one(f"{stop} at once", {"fails": stop})
        yield from one(f"{stop} after two turns", look, look, {"fails": stop})

    # Questions.
    for name, question in {
        "trimmed": "  \n What? \t", "literal newline": "What?\\n(A) red\\n(B) blue", "unicode": "\u3000何色？\u2028 – ß",
        "separators": "\x1cWhat?\x1f", "tags": "Is <answer>A</answer> or <|im_end|> right?", "empty": "",
        "long": "Why? " * 400,
    }.items():
        yield from one("question: " + name, look, DONE, question=question)
    yield from one("a system message of its own", look, DONE, system="You watch birds.")


def drawn(count):
    """Episodes of several turns by chance."""
    draw = random.Random(20260322)
    for number in range(count):
        name = draw.choice(sorted(VIDEOS))
        end = VIDEOS[name][0]
        replies = []
        for _ in range(6):
            calls = []
            for _ in range(draw.choice((1, 1, 1, 2, 3))):
                a, b = (draw.choice((round(draw.uniform(-5, end + 5), draw.randrange(4)),
                                     draw.randrange(int(end) + 2))) for _ in "ab")
                count_of = draw.choice((1, 2, 3, 5, 8, 13, 32, 64, 200))
                ratio = draw.choice(("", "null", 0.05, 0.1, 0.25, 0.4, 0.5, 0.77, 1.0, 1.0))
                calls.append(select(a, b, count_of, ratio, draw.choice(("arguments", "arguments", "parameters"))))
            if draw.random() < 0.15:
                calls.insert(draw.randrange(len(calls) + 1), draw.choice((
                    '{"tool": "frame_select", "arguments": {"start_time": 1}}', select("?", 1, 1),
                    '{"tool": "frame_select", "arguments": {"start_time": 1, "end_time": 2}}', '{"tool": "zoom"}')))
            replies.append("Summary. Plan. " * draw.randrange(3) + ask(*calls))
            if draw.random() < 0.4:
                replies.append(draw.choice((DONE, "Answer: B", "<answer>C</answer>", "I can't say.", "The answer is D.")))
                break
        budget = draw.choice((12000, 12000, 2000, 500))
        fails = [i for i in range(8) if draw.random() < 0.08]
        episode = {"name": f"drawn {number}", "video": name, "question": QUESTION, "replies": replies[:6]}
        if budget != 12000:
            episode["budget"] = budget
        if fails:
            episode["fails"] = fails
        yield episode


# --- The scorer --------------------------------------------------------------------------------------

def score(records):
    """What the published scorer says of result records."""
    out = {"items": 0, "correct": 0, "unanswered": 0, "stop_reasons": {}}
    rounds = tokens = 0
    for gt, answer, stop, num_rounds, total_tokens in records:
        out["items"] += 1
        stop = STOPS[stop] or "missing_stop_reason"
        out["stop_reasons"][stop] = out["stop_reasons"].get(stop, 0) + 1
        rounds += num_rounds
        tokens += total_tokens
        said = str(answer).strip().upper()
        if said == "":
            out["unanswered"] += 1
        elif said == str(gt).strip().upper():
            out["correct"] += 1
    out["accuracy"] = out["correct"] / out["items"]
    out["rounds"] = rounds / out["items"]
    out["total_tokens"] = tokens / out["items"]
    return out


# The last is of a record without one.
STOPS = ["answer_found", "max_turns_exceeded", "no_answer_no_tool_call", "no_valid_tool_call", "exception",
         "no_nframes; arguments_not_json", None]


def drawn_records(count):
    """Records by chance: ground truth, answer, number of the stop reason, rounds, tokens."""
    draw = random.Random(12)
    alike = [["A", "a"], ["B", "b"], ["\u00df", "ss", "SS", "\u1e9e"], ["\u0131", "i", "I", "\u0130"],
             ["\ufb01", "fi"], ["\u0149", "\u02bcN"], ["\u00e9", "\u00c9", "e\u0301", "E\u0301"],
             ["\u03a3", "\u03c3", "\u03c2"], ["\u01c6", "\u01c5", "\u01c4"], ["\u0411", "\u0431"],
             ["none", None], ["true", True], ["False", False], ["5", 5, 5.0], ["2.5", 2.5, -2.5], ["@"], [""],
             ["A. the bird", "a. THE bird"], ["\U00010428", "\U00010400"], ["\u0390", "\u1fd3"]]
    spaces = ["", "", "", " ", "\n", "\t", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x85",
              "\xa0", "\u1680", "\u2003", "\u2028", "\u202f", "\u3000", "\u200b", "\ufeff", "\u180e"]

    def padded(value):
        return draw.choice(spaces) + value + draw.choice(spaces) if isinstance(value, str) else value

    for _ in range(count):
        group = draw.choice(alike)
        gt = padded(draw.choice(group))
        answer = padded(draw.choice(group if draw.random() < 0.7 else draw.choice(alike)))
        if draw.random() < 0.1 or answer is None:
            answer = draw.choice(["", " ", "\x1e\n", "\u3000"])
        yield [gt, answer, max(draw.randrange(-5, len(STOPS)), 0), draw.randrange(7), draw.randrange(40000)]


def write(path, head, lines):
    with open(path, "w", encoding="ascii") as out:
        out.write(head)
        out.write(",\n".join(json.dumps(line, separators=(",", ":")) for line in lines))
        out.write("\n]}\n")


def main():
    episodes = [*scripted(), *drawn(60)]
    for episode in episodes:
        episode["expect"] = play(episode)
    names = [episode["name"] for episode in episodes]
    assert len(set(names)) == len(names)
    records = [*drawn_records(2500)]
    head = {"stops": STOPS, "expect": score(records)}
    write("scores.json", json.dumps(head)[:-1] + ',\n"records": [\n', records)
    write("episodes.json", '{"videos": ' + json.dumps(VIDEOS) + ',\n"episodes": [\n', episodes)


if __name__ == "__main__":
    main()
