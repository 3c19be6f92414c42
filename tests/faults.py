"""Commands that write, killed, starved and raced: what is there is whole, the next command tidies up.

    python tests/faults.py [--only moments,calls,disks,races] [--seed S] [--minutes M | --tries N]

moments   SIGKILL, SIGTERM, SIGINT and SIGHUP, one or two of them, at drawn moments of a command
calls     at each system call that changes the disk: SIGKILL, or an error, once or from then on (by strace)
disks     a full disk, files that may not grow, folders and file systems that are read-only
races     several makers of one bundle, with and without --force, some killed, and readers at the same time

A command runs in a forked child, so this runs where no thread has been started. What is tried is drawn from
the seed. Progress is on standard error; the exit code is 1 if something was found.
"""

import argparse
import contextlib
import ctypes
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from killed import RECIPE, content
from threadpoolctl import threadpool_limits

from refnet import cli, golden
from refnet.errors import RefnetError
from refnet.render import files

NET = ("resnet18_conv4", "--input", "1x3x1x32x32", "--width-per-group", "4", "--time-kernel", "1")
PAGE = b"an old page"
# What changes the disk, and what it may answer.
ERRORS = {
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "pwrite64": ("ENOSPC", "EIO"),
    "writev": ("ENOSPC", "EIO"),
    "ftruncate": ("ENOSPC", "EIO"),
    "openat": ("ENOSPC", "EROFS", "EACCES", "EMFILE"),
    "mkdir": ("ENOSPC", "EROFS", "EACCES"),
    "rename": ("EIO", "EROFS", "ENOSPC"),
    "renameat": ("EIO", "EROFS", "ENOSPC"),
    "renameat2": ("EIO", "EROFS", "ENOSPC", "EINVAL"),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO",),
    "chmod": ("EIO", "EROFS"),
    "fchmod": ("EIO", "EROFS"),
    "unlink": ("EIO", "EROFS"),
    "unlinkat": ("EIO", "EROFS"),
    "rmdir": ("EIO", "EROFS"),
    "flock": ("ENOLCK",),
}
# With these no clean-up is possible: what is left is for the next command.
UNCLEAN = {"unlink", "unlinkat", "rmdir", "openat", "mkdir"}
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CAPABILITIES = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 of linux/capability.h
# After so much that is wrong, no more is tried of a part.
MOST_WRONG = 100


class WrongError(Exception):
    """What should not be."""


@dataclass(frozen=True)
class Scenario:
    """A command, what is under its name before, and what may be there after.

    Attributes
    ----------
    name : str
    arguments : tuple of str
        {out} is the name.
    out : str
    old : Path or bytes or None
        What is there before.
    new : object
        What `state` says of the name once the command has succeeded.
    system : tuple of str
        What strace always answers: that a system has no flags of a rename. There the name may be without
        anything for a moment.
    """

    name: str
    arguments: tuple
    out: str
    old: object
    new: object = None
    system: tuple = ()

    def prepare(self, place):
        """A folder that holds what is there before, and nothing else."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if isinstance(self.old, bytes):
            (place / self.out).write_bytes(self.old)
        elif self.old is not None:
            shutil.copytree(self.old, place / self.out)

    def command(self, place):
        return [argument.format(out=place / self.out) for argument in self.arguments]

    def before(self):
        return self.old if isinstance(self.old, bytes | None) else content(self.old)


def state(path):
    """What is under a name: the hashes of a folder's files, a file's content, or None."""
    if path.is_dir():
        return content(path)
    return path.read_bytes() if path.exists() else None


class Running:
    """A command in a child; what it says goes to files."""

    def __init__(self, arguments, folder, *, before=lambda: None, stopped=False):
        self.said, self.refused = ((folder / f"{name}-{id(self)}").open("w+b") for name in ("out", "err"))
        read, self.release = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.release)
            if stopped:
                # Any process may trace this one, and the next call begins when one does.
                ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
                os.read(read, 1)
            os._exit(_main(arguments, self.said, self.refused, before))
        os.close(read)
        if not stopped:
            self.go()

    def go(self):
        os.close(self.release)

    def kill(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ended(self, seconds=120):
        """(exit code or minus the signal, standard output, standard error); WrongError if it hangs."""
        end = time.monotonic() + seconds
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                self.kill(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise WrongError(f"hangs for {seconds} s")
            time.sleep(0.002)
        texts = []
        for stream in (self.said, self.refused):
            stream.seek(0)
            texts.append(stream.read().decode())
            stream.close()
            Path(stream.name).unlink()
        return os.waitstatus_to_exitcode(found[1]), *texts


def _main(arguments, said, refused, before):
    """Run a command line in a child: its exit code."""
    try:
        os.dup2(said.fileno(), 1)
        os.dup2(refused.fileno(), 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
        before()
        sys.argv = ["refnet", *arguments]
        cli.main()
    except SystemExit as ended:
        return ended.code
    except KeyboardInterrupt:  # before the command has begun
        return 128 + signal.SIGINT
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
        return 70
    return 0


# What must hold.


def require(holds, what):
    if not holds:
        raise WrongError(what)


def whole(scenario, place):
    """The name of what is there: none, old or new; nothing else may be."""
    found = state(place / scenario.out)
    if found is None:
        require(scenario.old is None, "nothing is there")
        return "none"
    if found == scenario.new:
        return "new"
    require(
        found == scenario.before(), f"what is there is neither the old nor the new: {other(found, scenario)}"
    )
    return "old"


def other(found, scenario):
    """How what is there differs from what should be."""
    if isinstance(found, dict):
        return sorted(name for name in {*found, *scenario.new} if found.get(name) != scenario.new.get(name))
    pairs = zip(found, scenario.new, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(scenario.new)))
    here, there = (page[at : at + 60] for page in (found, scenario.new))
    return f"{len(found)} bytes for {len(scenario.new)}, {here!r} for {there!r}"


def tidy(scenario, place):
    """The next command in that place leaves nothing but the name, and what was there is there."""
    before = state(place / scenario.out)
    if scenario.out.endswith("html"):
        files.write(place / "next.html", b"")
        (place / "next.html").unlink()
    else:
        with contextlib.suppress(RefnetError):
            golden.Bundle(place / scenario.out)
    found = whole(scenario, place)
    require(before is None or state(place / scenario.out) == before, "the next command changes what is there")
    nothing_left(scenario, place, "the next command leaves")
    return found


def refused_in_one_line(text):
    require(text.startswith("refnet: ") and text.count("\n") == 1, f"says {text[-600:]!r}")


def nothing_left(scenario, place, what="leaves"):
    left = sorted(file.name for file in place.iterdir() if file.name != scenario.out)
    require(not left, f"{what} {left}")


# Moments.


def moments(scenarios, rng, folder):
    """One command, and a signal or two at a drawn moment."""
    scenario = pick(rng, scenarios)
    place = folder / "place"
    at, later = rng.uniform(0, 1.1 * scenario_seconds(scenario, folder)), rng.exponential(0.003)
    number = pick(rng, (signal.SIGKILL, *STOPPING))
    second = pick(rng, STOPPING) if rng.integers(3) == 0 else None
    scenario.prepare(place)
    running = Running(scenario.command(place), folder)
    time.sleep(at)
    running.kill(number)
    if second is not None:
        time.sleep(later)
        running.kill(second)
    what = f"{scenario.name}, {number.name}" + (f", {second.name}" if second else "")
    try:
        code, _, refused = running.ended()
        found = whole(scenario, place)
        if number in STOPPING and code == 128 + number:
            nothing_left(scenario, place)
            require(not refused or refused == f"refnet: stopped by {number.name}\n", f"says {refused!r}")
        else:
            # By itself, by a second signal, or before its handlers were there.
            ends = {0, -number, *(() if second is None else (-second, 128 + second))}
            require(code in ends, f"ends with {code}: {refused[-600:]!r}")
        require(code != 0 or found == "new", f"ends with 0, and there is {found}")
        tidy(scenario, place)
    except WrongError as wrong:
        raise WrongError(f"{what}, after {at:.4f} s: {wrong}") from None
    return f"{scenario.name}, {number.name}: {found}"


SECONDS = {}


def scenario_seconds(scenario, folder):
    """How long a command takes, undisturbed."""
    if scenario.name not in SECONDS:
        place = folder / "place"
        scenario.prepare(place)
        start = time.monotonic()
        code, _, refused = Running(scenario.command(place), folder).ended()
        require(code == 0, refused)
        SECONDS[scenario.name] = time.monotonic() - start
    return SECONDS[scenario.name]


# System calls.


def traced(scenario, place, folder, inject=()):
    """Run a command under strace: (its end, the lines of the trace)."""
    log = folder / "trace"
    scenario.prepare(place)
    running = Running(scenario.command(place), folder, stopped=True)
    options = [f"--inject={what}" for what in inject]
    strace = subprocess.Popen(
        [
            *("strace", "-y", "-p", str(running.pid), "-o", str(log), "-e", f"trace={','.join(ERRORS)}"),
            *options,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    attached = strace.stderr.readline()
    if "attached" not in attached:
        running.kill(signal.SIGKILL)
        running.go()
        running.ended()
        raise RuntimeError(f"strace cannot trace: {attached}{strace.communicate()[1]}")
    running.go()
    try:
        end = running.ended()
    finally:
        strace.communicate()
    return end, log.read_text(errors="replace").splitlines()


def system_calls(scenario, folder):
    """Of each system call that changes the place, how often it is called before, and the line of it."""
    place = folder / "place"
    (code, _, refused), lines = traced(scenario, place, folder, scenario.system)
    require(code == 0, refused)
    calls, ordinals = [], Counter()
    for line in lines:
        if found := re.match("([a-z0-9]+)\\(", line):
            name = found[1]
            ordinals[name] += 1
            if concerns(place, line) and (name != "openat" or re.search("O_CREAT|O_WRONLY|O_RDWR", line)):
                calls.append((name, ordinals[name]))
    return calls


def concerns(place, line):
    """Whether a call of a trace is about what is in a folder, and not a text that names it."""
    first = line.split(",")[0]
    by_descriptor = line.startswith(("write", "pwrite", "f"))
    return str(place) in (first if by_descriptor else line)


CALLS = {}


def calls(scenarios, rng, folder):
    """One command, killed or answered with an error at one system call."""
    if not CALLS:
        points = [
            (scenario, name, ordinal, action)
            for scenario in (*scenarios, *(two_steps(s) for s in scenarios if s.name in ("make", "force")))
            for name, ordinal in system_calls(scenario, folder)
            for action in ("KILL", *ERRORS[name], *(f"{error}+" for error in ERRORS[name]))
            if not (scenario.system and name == "renameat2")
        ]
        CALLS["points"] = [points[i] for i in rng.permutation(len(points))]
        CALLS["next"] = count()
        say(f"calls: {len(points)} points in commands")
    at = next(CALLS["next"])
    if at >= len(CALLS["points"]):
        return None
    return at_call(*CALLS["points"][at], folder)


def two_steps(scenario):
    """Where a rename has no flags."""
    return replace(scenario, name=f"{scenario.name}, two steps", system=("renameat2:error=EINVAL",))


def at_call(scenario, name, ordinal, action, folder):
    place, error = folder / "place", action.rstrip("+")
    how = "signal=KILL" if action == "KILL" else f"error={error}"
    when = f"{ordinal}{'+' if action.endswith('+') else ''}"
    inject = [*scenario.system, f"{name}:{how}:when={when}"]
    (code, _, refused), lines = traced(scenario, place, folder, inject)
    # Renames that fail from then on cannot be taken back: the next command does that.
    later = bool(scenario.system) and (action == "KILL" or (name == "rename" and action.endswith("+")))
    try:
        missing = later and scenario.old is not None and not (place / scenario.out).exists()
        found = "restored" if missing else whole(scenario, place)
        if action == "KILL":
            require(code in (0, -signal.SIGKILL), f"ends with {code}: {refused[-600:]!r}")
        else:
            hit = [line for line in lines if "(INJECTED)" in line and line.startswith(f"{name}(")]
            require(code in (0, 2), f"ends with {code}: {refused[-600:]!r}")
            if code == 2 and hit and all(concerns(place, line) for line in hit):
                refused_in_one_line(refused)
                require(found != "new" or later, "is refused, and the new is there")
            if name not in UNCLEAN and not later:
                nothing_left(scenario, place)
            require(code == 2 or found == "new", f"ends with 0, and there is {found}")
        tidy(scenario, place)
    except WrongError as wrong:
        raise WrongError(f"{scenario.name}, {name} {when}, {action}: {wrong}") from None
    return f"{name} {action}: {found}"


# Disks.


def disks(scenarios, rng, folder):
    """A command on a disk that is full, or where nothing may be written."""
    scenario = pick(rng, scenarios)
    kinds = ["limit", "folder"] + ["full", "read-only"] * mountable(folder)
    kind = pick(rng, kinds)
    place = folder / "place"
    with contextlib.ExitStack() as stack:
        if kind in ("full", "read-only"):
            # Of the size of what is written, about; what the old needs is beside.
            size = int(rng.uniform(4, 2600)) if kind == "full" else 8000
            stack.enter_context(mounted(folder / "disk", size, scenario.old))
            place = folder / "disk" / "place"
        scenario.prepare(place)
        most = int(rng.integers(1, 1_100_000))
        if kind == "folder":
            place.chmod(0o555)
        elif kind == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", folder / "disk"], check=True)
        try:
            before = partial(_confine, kind, most)
            code, _, refused = Running(scenario.command(place), folder, before=before).ended()
            if kind == "folder":
                place.chmod(0o755)
            found = whole(scenario, place)
            nothing_left(scenario, place)
            if code == 2:
                refused_in_one_line(refused)
                require(found != "new", "is refused, and the new is there")
            else:
                require(code == 0 and found == "new", f"ends with {code}, {found}: {refused[-600:]!r}")
                require(kind in ("full", "limit"), "wrote where nothing may be written")
            if kind != "read-only":
                tidy(scenario, place)
        except WrongError as wrong:
            raise WrongError(f"{scenario.name}, {kind}: {wrong}") from None
    return f"{kind}: {found}"


def _confine(kind, most):
    """In a child: files no longer than that, or no more rights than a file's owner has."""
    if kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    elif kind == "folder" and os.getuid() == 0:
        # Not another user: that one may be unable to read the package itself, in a clone that is private.
        libc = ctypes.CDLL(None, use_errno=True)
        none = (ctypes.c_uint32 * 6)()
        if libc.capset((ctypes.c_uint32 * 2)(CAPABILITIES, 0), none):
            raise OSError(ctypes.get_errno(), "capset")


MOUNTABLE = []
# A page says the day on which it was made.
os.environ["SOURCE_DATE_EPOCH"] = "0"


def mountable(folder):
    """Whether this process may mount a file system of its own."""
    if not MOUNTABLE:
        try:
            with mounted(folder / "disk", 64, None):
                MOUNTABLE.append(True)
        except (OSError, subprocess.CalledProcessError):
            MOUNTABLE.append(False)
    return MOUNTABLE[0]


@contextlib.contextmanager
def mounted(point, kibibytes, old):
    """A file system in memory, with room for what is old and so much more."""
    if isinstance(old, Path):
        kibibytes += sum(file.stat().st_size // 1024 + 8 for file in old.iterdir())
    point.mkdir(exist_ok=True)
    options = f"size={kibibytes + 64}k"
    command = ["mount", "-t", "tmpfs", "-o", options, "none", point]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


# Races.


def races(scenarios, rng, folder):
    """Makers of one bundle at once, some of them killed, and readers meanwhile."""
    force = bool(rng.integers(2))
    scenario = next(s for s in scenarios if s.name == ("force" if force else "make"))
    place, seconds = folder / "place", scenario_seconds(scenario, folder)
    scenario.prepare(place)
    out = str(place / "out")
    makers, killed = [], []
    for i in range(int(rng.integers(2, 4))):
        arguments = [*scenario.command(place)[:-1], str(MAKERS[i])]
        makers.append(Running(arguments, folder))
        time.sleep(rng.exponential(0.02))
    kinds = (("verify", out), ("diff", out, out), ("diff", out, str(folder / "seed1")))
    asked = [kinds[int(rng.integers(3 if force else 2))] for _ in range(2)]
    readers = [Running(["golden", *kind], folder) for kind in asked]
    if rng.integers(2):
        time.sleep(rng.uniform(0, seconds))
        makers[-1].kill(signal.SIGKILL)
        killed.append(makers[-1])
    what = f"{scenario.name}, {len(makers)} makers, {len(killed)} killed"
    try:
        ends = [(maker, *maker.ended()) for maker in makers]
        reads = [(*kind[:1], *reader.ended()) for kind, reader in zip(asked, readers, strict=True)]
        found = state(place / "out")
        known = [KNOWN[seed] for seed in MAKERS[: len(makers)]]
        codes = [code for _, code, _, _ in ends]
        if force:
            known.append(scenario.before())
        for maker, code, _, refused in ends:
            require(code in ((0, 2, -9) if maker in killed else (0, 2)), f"ends with {code}: {refused!r}")
            if code == 2:
                refused_in_one_line(refused)
                require(not force, f"is refused: {refused!r}")
        require(
            found in known or (found is None and not force and 0 not in codes), "what is there is not whole"
        )
        if not force:
            require(codes.count(0) <= 1, f"{codes.count(0)} makers have made it")
            # One that is killed may have given it its name, too late to say so.
            require(found is None or 0 in codes or -signal.SIGKILL in codes, "nobody has made what is there")
        for kind, code, said, refused in reads:
            if kind == "diff" and code == 1:
                # Two names may be opened before and after a replacement: whole bundles, that differ.
                require(force and "of 176 tensors" in said, f"diff says {said!r} {refused!r}")
                continue
            require(code in ((0,) if force else (0, 2)), f"{kind} ends with {code}: {said!r} {refused!r}")
        with contextlib.suppress(RefnetError):
            golden.Bundle(place / "out")
        require(state(place / "out") == found, "the next command changes what is there")
        nothing_left(scenario, place)
    except WrongError as wrong:
        raise WrongError(f"{what}: {wrong}") from None
    return what


MAKERS = (1, 2, 3)
KNOWN = {}


# The loop.


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def say(line):
    print(line, file=sys.stderr, flush=True)


def prepared(folder):
    """The commands that write, and what each of them makes."""
    for seed in (0, *MAKERS):
        made = golden.make(folder / f"seed{seed}", replace(RECIPE, seed=seed)).path
        KNOWN[seed] = content(made)
    old, make = folder / "seed0", ("golden", "make", NET[0], "{out}", *NET[1:])
    _warm(folder, old)
    certify = ("certify", str(old), str(old), "--html", "{out}")
    scenarios = [
        Scenario("make", (*make, "--seed", "1"), "out", None, KNOWN[1]),
        Scenario("force", (*make, "--force", "--seed", "1"), "out", old, KNOWN[1]),
        Scenario("trace", ("trace", *NET, "--html", "{out}"), "page.html", PAGE),
        Scenario("certify", certify, "page.html", PAGE),
        Scenario("gradcheck", ("gradcheck", "relu", "--draws", "1", "--html", "{out}"), "page.html", None),
    ]
    return [scenario if scenario.new else with_page(scenario, folder) for scenario in scenarios]


def _warm(folder, old):
    """Import what commands import when they run: one without rights may not read it."""
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    for arguments in (
        ["certify", str(old), str(old), "--html", str(folder / "page.html")],
        ["golden", "verify", ""],
    ):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            sys.argv = ["refnet", *arguments]
            with contextlib.suppress(SystemExit):
                cli.main()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def with_page(scenario, folder):
    place = folder / "place"
    pages = set()
    for _ in range(2):
        scenario.prepare(place)
        code, _, refused = Running(scenario.command(place), folder).ended()
        require(code == 0, f"{scenario.name} ends with {code}: {refused}")
        pages.add(state(place / scenario.out))
    require(len(pages) == 1, f"two pages of {scenario.name} differ")
    return replace(scenario, new=pages.pop())


PARTS = {part.__name__: part for part in (moments, calls, disks, races)}


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5, help="of all parts together")
    parser.add_argument("--tries", type=int, help="of each part, in place of minutes")
    options = parser.parse_args(arguments)
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    if "calls" in parts and not shutil.which("strace"):
        say("calls: left out, strace not found: on Debian, `apt-get install strace`")
        parts.remove("calls")
    say(f"seed {options.seed}")
    failed = 0
    # A forked child computes on one thread, and its manifest says so: what it is compared with, too.
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        scenarios = prepared(folder)
        CALLS.clear()
        for part in parts:
            counts, wrong = tried(part, scenarios, options, len(parts), folder)
            for line, times in sorted(counts.items()):
                say(f"{part}: {times} times {line}")
            say(f"{part}: {sum(counts.values()) + len(wrong)} tried, {len(wrong)} wrong")
            failed += len(wrong)
    return 1 if failed else 0


def tried(part, scenarios, options, parts, folder):
    """What came of the tries of one part, and what was wrong."""
    counts, wrong, start = Counter(), [], time.monotonic()
    for i in count():
        over = time.monotonic() - start > 60 * options.minutes / parts
        if (i >= options.tries) if options.tries else over:
            break
        rng = np.random.default_rng((options.seed, i))
        try:
            found = PARTS[part](scenarios, rng, folder)
        except WrongError as error:
            wrong.append(str(error))
            say(f"{part}: WRONG, seed {options.seed}, try {i}: {error}")
            if len(wrong) == MOST_WRONG:
                break
            continue
        if found is None:
            break
        counts[found] += 1
        if i % 100 == 99:
            say(f"{part}: {i + 1} tried, {len(wrong)} wrong")
    return counts, wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
