#!/usr/bin/env python3
"""Compares eva-gst with decord, torchcodec and the bare decoder on one video.

    make bench-frames [VIDEO=FILE] [RESIZE=0.5] [REPEATS=3]

Prints a table and writes target/bench-frames/results.json. What is measured, and how, stands in
docs/frames.md. `bench_frames.py peer NAME ...` is how it starts the others, each in a process of
its own.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "bench-frames"
# The bars of each workload: at most so many times what the other one takes.
BARS = {
    "torchcodec": {"single": 0.9, "sparse": 0.7, "medium": 0.75, "dense": 0.75},
    "decord": {"single": 0.7, "sparse": 0.7, "medium": 0.7, "dense": 0.7},
    "limit": {"single": 1.15, "sparse": 1.15, "medium": 1.15, "dense": 1.15},
}


def workloads(duration):
    """Name -> times in seconds. The windows shrink to fit a shorter video."""

    def spread(count, span, begin):
        span = min(span, duration)
        begin = min(begin, duration - span)
        # In the middle of each part: never on the border between two frames.
        return [begin + (i + 0.5137) * span / count for i in range(count)]

    return {
        "single": [duration * 0.6137],
        "sparse": spread(16, 600.0, 0.0),
        "medium": spread(64, 120.0, duration * 0.3),
        "dense": spread(100, 10.0, duration * 0.45),
    }


def clock():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e3, time.perf_counter() * 1e3


def measured(work):
    before = clock()
    result = work()
    after = clock()
    return result, after[0] - before[0], after[1] - before[1]


# --- the others -------------------------------------------------------------------------------


class Torchcodec:
    """Exact mode, resizing in its own filters."""

    def __init__(self, path, size, threads):
        import torch
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        torch.set_num_threads(threads)
        transforms = [Resize(size=(size[1], size[0]))] if size else None
        self.decoder = VideoDecoder(
            path,
            seek_mode="exact",
            num_ffmpeg_threads=threads,
            dimension_order="NHWC",
            transforms=transforms,
        )

    def frames(self, times):
        begin = self.decoder.metadata.begin_stream_seconds or 0.0
        end = self.decoder.metadata.end_stream_seconds
        asked = [min(begin + at, end - 1e-6) for at in times]
        return len(self.decoder.get_frames_played_at(seconds=asked).data)


class Decord:
    """Its own sizing; frames by index, as decord has it."""

    def __init__(self, path, size, threads):
        import decord

        width, height = size or (-1, -1)
        self.reader = decord.VideoReader(
            path, ctx=decord.cpu(0), width=width, height=height, num_threads=threads
        )

    def frames(self, times):
        rate, last = self.reader.get_avg_fps(), len(self.reader) - 1
        indices = [min(round(at * rate), last) for at in times]
        return len(self.reader.get_batch(indices).asnumpy())


class Limit:
    """libavcodec, by way of PyAV, fed exactly the packets that must be decoded, in one thread, and
    swscale's bicubic for the kept frames. Reading the packets is not counted."""

    def __init__(self, path, size, threads):
        import av

        self.size = size
        self.container = av.open(path)
        self.stream = self.container.streams.video[0]
        self.packets = [p for p in self.container.demux(self.stream) if p.pts is not None]
        self.shown = sorted(p.pts for p in self.packets)
        self.first = self.shown[0]
        self.length = 0
        extra = bytes(self.stream.codec_context.extradata or b"")
        if self.stream.codec_context.name == "h264" and extra[:1] == b"\x01":
            self.length = (extra[4] & 3) + 1

    def disposable(self, packet):
        """Whether no other picture refers to this one: H.264 with lengths only."""
        if not self.length:
            return packet.is_disposable
        data, at = bytes(packet), 0
        while at + self.length < len(data):
            size = int.from_bytes(data[at : at + self.length], "big")
            head = data[at + self.length]
            if head & 0x1F in (1, 2, 5):
                return head & 0x60 == 0
            at += self.length + size
        return False

    def plan(self, times):
        """Per GOP: the packets to decode and the times to keep."""
        import bisect

        base = float(self.stream.time_base)
        wanted = {
            self.shown[max(0, bisect.bisect_right(self.shown, self.first + at / base) - 1)]
            for at in times
        }
        runs, gop = [], []

        def close():
            keep = [i for i, p in enumerate(gop) if p.pts in wanted]
            if keep:
                head = gop[: keep[-1] + 1]
                runs.append([p for p in head if p.pts in wanted or not self.disposable(p)])

        for packet in self.packets:
            if packet.is_keyframe and gop:
                close()
                gop = []
            gop.append(packet)
        close()
        return runs, wanted

    def prepare(self, times):
        import av

        self.runs, self.wanted = self.plan(times)
        self.context = av.CodecContext.create(self.stream.codec_context.name, "r")
        self.context.extradata = self.stream.codec_context.extradata
        self.context.thread_count = 1
        self.context.thread_type = "NONE"
        self.context.open()
        self.reformatter = av.video.reformatter.VideoReformatter()

    def frames(self, times):
        kept = 0
        for run in self.runs:
            for packet in [*run, None]:
                for frame in self.context.decode(packet):
                    if frame.pts in self.wanted:
                        width, height = self.size or (frame.width, frame.height)
                        self.reformatter.reformat(
                            frame, width, height, "rgb24", interpolation="BICUBIC"
                        ).to_ndarray()
                        kept += 1
            self.context.flush_buffers()
        return kept


PEERS = {"torchcodec": Torchcodec, "decord": Decord, "limit": Limit}


def peer(arguments):
    """Runs each workload on a newly opened video; prints the costs as JSON."""
    jobs = json.loads(sys.stdin.read())
    size = tuple(jobs["size"]) if jobs["size"] else None
    kind, out = PEERS[arguments.name], {}
    # What only the first frame in a process costs is not meant.
    warm = kind(jobs["video"], size, jobs["threads"])
    if hasattr(warm, "prepare"):
        warm.prepare([0.0])
    warm.frames([0.0])
    for name, times in jobs["workloads"].items():
        reader, open_cpu, _ = measured(lambda: kind(jobs["video"], size, jobs["threads"]))
        if hasattr(reader, "prepare"):
            reader.prepare(times)
        frames, cpu, wall = measured(lambda: reader.frames(times))
        out[name] = {"cpu_ms": cpu, "wall_ms": wall, "frames": frames, "open_cpu_ms": open_cpu}
        del reader
    print(json.dumps(out))


# --- the comparison ---------------------------------------------------------------------------


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"bench-frames: {' '.join(map(str, command))[:300]} failed")
    return done.stdout


def build():
    out = run(
        ["cargo", "bench", "-p", "eva-gst", "--bench", "frames", "--no-run"]
        + ["--message-format=json-render-diagnostics"],
        cwd=ROOT,
    )
    for line in out.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "frames" and message.get("executable"):
            return message["executable"]
    sys.exit("bench-frames: cargo did not say where the benchmark is")


def ours(binary, video, resize, threads, times, first=None):
    command = [binary, str(video), "--resize", str(resize), "--threads", str(threads)]
    if times:
        command += ["--times", ",".join(f"{at:.9f}" for at in times)]
    if first is not None:
        command += ["--first", str(first)]
    return json.loads(run(command))


def all_ours(binary, video, resize, threads, jobs):
    out = {}
    for name, times in jobs.items():
        result = ours(binary, video, resize, threads, times)
        out[name] = {**result["rounds"][0], "open_cpu_ms": result["open_cpu_ms"]}
        out[name].pop("shown")
    return out


def ffmpeg(*arguments):
    run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)])


def synthetic():
    """Ten minutes of H.264, 1280 x 720, a keyframe every 250 pictures: a minute, ten times."""
    whole = WORK / "synthetic.mp4"
    if not whole.exists():
        minute = WORK / "minute.mp4"
        print("making a synthetic video of 10 minutes", flush=True)
        ffmpeg(
            *["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25,noise=alls=4:allf=t"],
            *["-t", 60, "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast"],
            *["-g", 250, "-keyint_min", 250, "-sc_threshold", 0, minute],
        )
        part = WORK / "part.mp4"
        ffmpeg("-stream_loop", 9, "-i", minute, "-c", "copy", part)
        part.rename(whole)
        minute.unlink()
    return whole


def longer(video):
    """The first two minutes of the video, and two hours made of them; nothing is encoded again."""
    suffix = video.suffix if video.suffix in (".mp4", ".mkv", ".webm", ".mov") else ".mkv"
    short, long = WORK / f"short{suffix}", WORK / f"long{suffix}"
    for old in (short, long):
        old.unlink(missing_ok=True)
    copy = ["-map", "0:v:0", "-c", "copy"]
    ffmpeg("-i", video, "-t", 120, *copy, short)
    seconds = float(
        run(
            ["ffprobe", "-v", "error", "-show_entries", "format=duration"]
            + ["-of", "csv=p=0", str(short)]
        )
    )
    if short.stat().st_size * 7200 / seconds > 6e9:
        return None
    ffmpeg("-stream_loop", int(7200 / seconds), "-i", short, "-t", 7200, *copy, long)
    return short, long


def least(runs, field):
    return min(result[field] for result in runs)


def compare(binary, video, resize, repeats, threads, peers):
    probe = ours(binary, video, resize, 1, [0.0])
    jobs = workloads(probe["duration"])
    native = resize == 1.0
    size = None if native else [probe["width"], probe["height"]]
    asked = json.dumps({"video": str(video), "size": size, "threads": threads, "workloads": jobs})
    results = {name: [] for name in ("eva-gst", *peers)}
    # By turns, so that what else the machine does hits all alike; the least of each counts.
    for _ in range(repeats):
        results["eva-gst"].append(all_ours(binary, video, resize, threads, jobs))
        for name in peers:
            out = run([sys.executable, __file__, "peer", name], input=asked)
            results[name].append(json.loads(out.splitlines()[-1]))
    fields = ("cpu_ms", "wall_ms", "open_cpu_ms", "frames")
    table = {
        name: {
            job: {field: least([r[job] for r in runs], field) for field in fields} for job in jobs
        }
        for name, runs in results.items()
    }
    for job in jobs:
        table["eva-gst"][job]["packets_decoded"] = results["eva-gst"][0][job]["packets_decoded"]
    return table


def show(table, field, title, bars):
    names = list(table)
    jobs = list(table["eva-gst"])
    print(f"\n{title}")
    print("| |" + "|".join(jobs) + "|")
    print("|---|" + "---:|" * len(jobs))
    for name in names:
        print(f"| {name} |" + "|".join(f" {table[name][job][field]:.0f} " for job in jobs) + "|")
    for name in names[1:]:
        cells = []
        for job in jobs:
            ratio = table["eva-gst"][job][field] / max(table[name][job][field], 1e-9)
            bar = bars.get(name, {}).get(job)
            mark = "" if bar is None else (" ok" if ratio <= bar else " MISSED") + f" ({bar})"
            cells.append(f" {ratio:.2f}{mark} ")
        print(f"| eva-gst / {name} |" + "|".join(cells) + "|")


def spent(binary, video, resize, times, repeats, first=None):
    return [ours(binary, video, resize, 1, times, first) for _ in range(repeats)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", help="a video file; a synthetic one by default")
    parser.add_argument("--resize", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(PEERS), choices=list(PEERS))
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    binary = build()
    for tool in ("ffmpeg", "ffprobe"):
        if not shutil.which(tool):
            sys.exit(f"bench-frames: no {tool}; run scripts/setup.sh bench")
    video = Path(arguments.video).resolve() if arguments.video else synthetic()
    if not video.is_file():
        sys.exit(f"bench-frames: {video}: no such file")
    repeats, resize = max(1, arguments.repeats), arguments.resize
    print(f"{video}, frames at {resize} of its size, the least of {repeats} runs by turns")

    one = compare(binary, video, resize, repeats, 1, arguments.only)
    show(one, "cpu_ms", "CPU time in ms, one decoder thread, opening excluded", BARS)
    show(one, "open_cpu_ms", "CPU time in ms of opening (not the first in the process)", {})

    print("\nLong and repeated questions (eva-gst, CPU time in ms, one thread)")
    checks = {}
    files = longer(video)
    if files:
        short, long = files
        both = []
        for path in (short, long):
            duration = ours(binary, path, resize, 1, [0.0])["duration"]
            times = [(i + 0.5137) * duration / 16 for i in range(16)]
            both.append((path, times))
        runs = [[], []]
        for _ in range(repeats):
            for place, (path, times) in enumerate(both):
                runs[place].append(ours(binary, path, resize, 1, times))
        costs = [min(r["rounds"][0]["cpu_ms"] for r in some) for some in runs]
        opening = least(runs[1], "open_cpu_ms")
        checks["open_2h_cpu_ms"] = opening
        checks["sixteen_in_2min_cpu_ms"], checks["sixteen_in_2h_cpu_ms"] = costs
        packets = [some[0]["rounds"][0]["packets_decoded"] for some in runs]
        checks["sixteen_packets_decoded"] = packets
        print(f"opening 2 hours: {opening:.1f} (bar 30)")
        print(f"first opening in a process: {least(runs[1], 'first_open_cpu_ms'):.1f}")
        print(
            f"16 frames in 2 hours / in 2 minutes: {costs[1]:.0f} / {costs[0]:.0f}"
            f" = {costs[1] / costs[0]:.2f} (bar 1.2), {packets[1]} / {packets[0]} packets decoded"
        )
        for path in files:
            path.unlink()
    else:
        print("the video is too large to be made into one of 2 hours here")
    duration = ours(binary, video, resize, 1, [0.0])["duration"]
    span = min(60.0, duration / 2)
    begin = duration * 0.2
    window = [begin + (i + 0.5137) * span / 32 for i in range(32)]
    # Half a window on: half of its frames were on display in the first.
    again = window + [at + span / 2 for at in window]
    runs = spent(binary, video, resize, again, repeats, first=32)
    first, second = (min(r["rounds"][i]["cpu_ms"] for r in runs) for i in (0, 1))
    checks["first_round_cpu_ms"], checks["second_round_cpu_ms"] = first, second
    print(f"second round, half overlapping: {second:.0f} / {first:.0f} = {second / first:.2f} (bar 0.6)")

    # Wall time last: on a machine that others use it says little.
    peers = [name for name in ("torchcodec", "decord") if name in arguments.only]
    load = os.getloadavg()[0]
    two = compare(binary, video, resize, repeats, 2, peers)
    bars = {"torchcodec": {"sparse": 0.5, "medium": 0.5}}
    title = f"Wall time in ms, two threads ({os.cpu_count()} cores, load {load:.1f})"
    show(two, "wall_ms", title, bars)

    results = {
        "video": video.name,
        "resize": resize,
        "repeats": repeats,
        "cores": os.cpu_count(),
        "load_before_wall": load,
        "one_thread": one,
        "two_threads": two,
        "checks": checks,
    }
    path = WORK / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        small = argparse.ArgumentParser()
        small.add_argument("peer")
        small.add_argument("name", choices=list(PEERS))
        peer(small.parse_args())
    else:
        main()
