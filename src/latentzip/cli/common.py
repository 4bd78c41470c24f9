"""What the file commands share: inputs, names of outputs, the loop over files, progress and reports."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..entropy.errors import CodecError, InputError
from ..files import same_file
from ..signals.sound import duration
from ..warn import ConversionWarning
from .app import debugging, one_line

STD = "-"
_SPOOL = 1 << 26  # bytes of a pipe that are held in memory; more go to a temporary file


class Usage(Exception):
    """Wrong usage: printed like argparse does, exit status 2."""


@dataclass(frozen=True)
class Job:
    """One input and where its output goes; ``"-"`` is stdin or stdout."""

    source: str
    target: str


def add_common(parser: argparse.ArgumentParser, what: str) -> None:
    """Arguments of every command that reads files."""
    parser.add_argument("inputs", nargs="+", metavar="IN", help=f"{what}; - is standard input")
    parser.add_argument("-r", "--recursive", action="store_true", help="look into folders, and folders in them")
    parser.add_argument("--json", action="store_true", help="report as one JSON object a line")
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes; errors still show")


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    """Arguments of every command that writes files."""
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=f"file, folder, or - for standard output (default: {default})"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace existing files")
    parser.add_argument("-j", "--threads", type=positive, metavar="N", help="threads to use (default: all cores)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... or auto (default: cpu)")


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def is_pipe(source: str) -> bool:
    """Whether an input can be read once only: standard input, a named pipe, a device, ``<(...)`` of a shell."""
    if source == STD:
        return True
    with suppress(OSError):
        mode = os.stat(source).st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


def standard_input() -> BinaryIO:
    """Where bytes come from; InputError when it is closed."""
    if sys.stdin is None:
        raise InputError("standard input is closed")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Where bytes go; InputError when it is closed."""
    if sys.stdout is None or getattr(sys.stdout, "name", None) == os.devnull:
        raise InputError("standard output is closed")
    return sys.stdout.buffer


def split_output(args: argparse.Namespace, suffixes: Iterable[str]) -> None:
    """``IN OUT`` as ``IN -o OUT``, as many commands have it: where OUT does not exist and is named like an output.

    Raises:
        Usage: OUT is among more inputs, or exists.
    """
    wanted = frozenset(suffixes)
    if args.output is not None or len(args.inputs) < 2 or Path(args.inputs[-1]).suffix.lower() not in wanted:
        return
    *inputs, last = args.inputs
    if any(Path(item).suffix.lower() in wanted for item in inputs):
        return
    if len(inputs) == 1 and not os.path.lexists(last) and not os.path.isdir(inputs[0]):
        args.inputs, args.output = inputs, last
    elif len(inputs) == 1 and os.path.lexists(last):
        raise Usage(f"{last} exists already; to replace it, say -o {last} --force")
    else:
        raise Usage(f"{last} is named like an output; name outputs with -o")


def start_engines(threads: int | None) -> None:
    """Set the number of threads and load the compiled loops in the background, while torch is being imported."""
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(threads)  # read when torch makes its thread pools
    from ..entropy import warm

    thread = warm()
    if thread is not None:
        atexit.register(thread.join, 20.0)  # the interpreter must not go down under a compiler at work
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


# --- inputs and outputs ------------------------------------------------------------------------------------------


def find_inputs(inputs: Iterable[str], recursive: bool, suffixes: Iterable[str]) -> list[tuple[str, Path]]:
    """Every input file with the name that its output gets inside an output folder: (path or "-", relative path).

    Raises:
        Usage: a folder without ``-r``, or a folder in which nothing is found.
    """
    wanted, found = frozenset(suffixes), []
    for item in inputs:
        path = Path(item)
        if item == STD:
            found.append((STD, Path("stdin")))
        elif path.is_dir():
            if not recursive:
                raise Usage(f"{item} is a folder; add -r to take the files in it")
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in wanted and p.is_file())
            if not files:
                raise Usage(f"no {'/'.join(sorted(wanted)[:4])}... files in {item}" if len(wanted) > 1
                            else f"no {next(iter(wanted))} files in {item}")  # fmt: skip
            found += [(str(p), p.relative_to(path)) for p in files]
        else:
            found.append((item, Path(path.name)))
    if sum(source == STD for source, _ in found) > 1:
        raise Usage("standard input (-) can be read once only")
    return found


def plan(args: argparse.Namespace, suffixes: Iterable[str], suffix: Callable[[str], str]) -> list[Job]:
    """Where each input goes. ``suffix(source)`` is the extension of an output without a name of its own.

    Raises:
        Usage: several inputs for one file, or binary output to a terminal.
    """
    found = find_inputs(args.inputs, args.recursive, suffixes)
    out: str | None = args.output
    if out is not None and "://" in out:
        raise Usage(f"{out} is a URL, and files are written on this machine: name a file or a folder, or - and a pipe")
    if out is None and len(found) == 1 and found[0][0] == STD:
        out = STD
    if out == STD:
        if len(found) > 1:
            raise Usage(f"{len(found)} inputs cannot go to one standard output; name a folder with -o")
        if args.json:
            raise Usage("--json and data cannot share standard output; name a file with -o")
        if sys.stdout.isatty():
            raise Usage("this is binary data and standard output is a terminal; name a file with -o, or use a pipe")
        return [Job(found[0][0], STD)]
    folder = out is not None and (Path(out).is_dir() or out.endswith(("/", os.sep)))
    several = len(found) > 1 or any(Path(i).is_dir() for i in args.inputs)
    if out is not None and several and not folder:
        if Path(out).suffix:
            raise Usage(f"{len(found)} inputs cannot go to one file {out}; name a folder (end it with /)")
        folder = True
    jobs = []
    for source, relative in found:
        if folder:
            assert out is not None
            target = Path(out) / relative.with_suffix(suffix(source))
        elif out is not None:
            target = Path(out)
        elif source != STD and is_pipe(source):
            raise Usage(f"{source} is a pipe: name its output with -o")
        elif source == STD:
            raise Usage("standard input needs a name for its output when there are other inputs: use -o FOLDER/")
        else:
            target = Path(source).with_suffix(suffix(source))
        jobs.append(Job(source, str(target)))
    return jobs


def any_readable(jobs: Iterable[Job]) -> bool:
    """Whether there is an input at all: if not, errors need not wait for torch."""
    return any(is_pipe(job.source) or os.path.exists(job.source) for job in jobs)


def begin(command: str, args: argparse.Namespace, plan: Callable[[], list[Job]]) -> list[Job] | None:
    """The jobs of a command, and what they need is loaded; None where it is used wrongly, and a line says so."""
    try:
        jobs = plan()
    except Usage as error:
        print(f"codec-cli {command}: error: {error}", file=sys.stderr)
        return None
    if any_readable(jobs):
        start_engines(args.threads)
        from .. import api  # noqa: F401  here, so that its loading is not taken for the first file's time
    return jobs


def profile_of(args: argparse.Namespace) -> Any:
    """The codec of ``--profile``, or of a ``--codec`` that is a file of weights; None without."""
    from ..codecs.registry import is_weights, load_weights

    codec = getattr(args, "codec", None) or ""
    path = args.profile or (codec if is_weights(codec) else None)
    return None if path is None else load_weights(path)


def prepare_target(job: Job, taken: dict[str, str], force: bool, make_parents: bool) -> None:
    """Refuse outputs that would destroy something, before the work begins; make folders that mirror inputs."""
    from ..files import check_writable

    target = Path(job.target)
    if same_file(Path(job.source), target):
        raise InputError("input and output are the same file; name another with -o")
    key = os.path.abspath(target)
    if key in taken:
        raise InputError(f"its output {target} is that of {taken[key]} too; encode them to different folders")
    taken[key] = job.source
    if make_parents:
        target.parent.mkdir(parents=True, exist_ok=True)
    check_writable(target, force)


def label(name: str, standard: str = "<stdin>") -> str:
    """A path as it is shown."""
    return standard if name == STD else name


def read_input(source: str) -> bytes:
    """All bytes of a file or of standard input."""
    return standard_input().read() if source == STD else Path(source).read_bytes()


@contextmanager
def opened_input(source: str) -> Iterator[Any]:
    """A path as it is; a pipe as an open file that can be sought, on disk where it is long."""
    if not is_pipe(source):
        yield Path(source)
        return
    with tempfile.SpooledTemporaryFile(_SPOOL) as file:
        with nullcontext(standard_input()) if source == STD else open(source, "rb") as pipe:
            shutil.copyfileobj(pipe, file, 1 << 20)
        file.seek(0)
        yield file


@contextmanager
def opened_output(target: str, force: bool) -> Iterator[Any]:
    """An open file that becomes ``target`` when the block ends; for standard output it is copied there then, so that
    nothing reaches a pipe before all of it is there."""
    from ..files import atomic_writer

    if target != STD:
        with atomic_writer(target, force) as file:
            yield file
        return
    out = standard_output()
    with tempfile.SpooledTemporaryFile(_SPOOL) as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, out, 1 << 20)
        out.flush()


# --- the loop ----------------------------------------------------------------------------------------------------


def run_all(
    args: argparse.Namespace,
    items: list[Any],
    work: Callable[[Any], dict[str, Any]],
    describe: Callable[[dict[str, Any]], str] | None,
    *,
    name: Callable[[Any], str],
    report_to_stdout: bool = False,
) -> int:
    """Do ``work`` on every item; a failure costs one line and the exit status, not the other items.

    Args:
        work: returns a row of plain data for ``--json``; raises CodecError or OSError.
        describe: a row in words, None for silence.
        report_to_stdout: whether the words are the command's result (stdout) or notes (stderr, off with --quiet).
    """
    global _current
    failed = 0
    bar = _current = _bar(args, len(items))
    for item in items:
        start = time.perf_counter()
        source = name(item)
        shown = label(source)
        row: dict[str, Any] = {"input": source}
        if bar is not None:
            bar.begin(shown)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("default")
                warnings.simplefilter("always", ConversionWarning)
                row |= work(item)
            row["seconds"] = round(time.perf_counter() - start, 4)
            notes = [str(w.message) for w in caught if issubclass(w.category, ConversionWarning)]
            notes = [n.removeprefix(f"{source}: ").removeprefix(f"{shown}: ") for n in notes]
            if notes:
                row["warnings"] = notes
        except Exception as error:  # a plug-in or a library may raise anything; the other inputs are done
            if isinstance(error, BrokenPipeError) or debugging():
                raise
            failed += 1
            text = one_line(error)
            if isinstance(error, MemoryError):
                text = "not enough memory"
            elif not isinstance(error, (CodecError, OSError)):
                text = f"unexpected {type(error).__name__}: {text} (LATENTZIP_DEBUG=1 shows where)"
            row["error"] = text.removeprefix(f"{source}: ").removeprefix(f"{shown}: ").removesuffix(f": {source}")
        if bar is not None:
            bar.clear()
        for note in row.get("warnings", ()):
            if not args.quiet:
                print(f"{shown}: warning: {note}", file=sys.stderr)
        if "error" in row:
            print(f"{shown}: {row['error']}", file=sys.stderr)
        if args.json:
            print(json.dumps(row))
        elif describe is not None and "error" not in row:
            if report_to_stdout:
                print(describe(row))
            elif not args.quiet:
                print(describe(row), file=sys.stderr)
        if bar is not None:
            bar.update()
    if bar is not None:
        bar.close()
    _current = None
    return 1 if failed else 0


def show_seconds(done: float, total: float) -> None:
    """Seconds of sound that are done, for the bar of `run_all`."""
    if _current is not None:
        _current.seconds(done, total)


def show_steps(done: float, total: float, *_: object) -> None:
    """Steps of a search that are done, for the bar of `run_all`."""
    if _current is not None:
        _current.steps(done, total)


class _Bar:
    """Progress on a terminal: files done and time gone by, once a second has passed; a thread keeps the time going."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        one = "{desc} {elapsed}" if total == 1 else None
        self._bar: Any = None
        options: dict[str, Any] = {"total": total, "unit": "file", "bar_format": one}
        self._make = lambda: tqdm(leave=False, file=sys.stderr, delay=1, **options)
        self._began = time.time()
        self._done, self._name = 0, ""
        self._lock, self._stop = threading.Lock(), threading.Event()
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        wait = 1.0
        while not self._stop.wait(wait):
            wait = 0.5
            with self._lock:
                if self._stop.is_set():
                    return
                if self._bar is None:
                    self._bar = self._make()
                    self._bar.start_t = self._began
                self._bar.set_description_str(self._name, refresh=False)
                self._bar.n = self._done
                self._bar.refresh()

    def begin(self, name: str) -> None:
        self._name = self._title = name

    def seconds(self, done: float, total: float) -> None:
        """How far the present file is, in seconds of sound."""
        self._name = f"{self._title} {duration(done)} of {duration(max(done, total))}"

    def steps(self, done: float, total: float) -> None:
        """How far the search for the present file is."""
        self._name = f"{self._title} step {done:.0f} of {total:.0f}"

    def clear(self) -> None:
        """Make room for a line of text."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()

    def update(self) -> None:
        self._done += 1

    def close(self) -> None:
        with self._lock:
            self._stop.set()
            if self._bar is not None:
                self._bar.close()


_current: _Bar | None = None  # of the running `run_all`


def _bar(args: argparse.Namespace, total: int) -> _Bar | None:
    return None if args.quiet or total < 1 or not sys.stderr.isatty() else _Bar(total)


def size_text(count: int) -> str:
    """Bytes for people: decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


@contextmanager
def counter(args: argparse.Namespace, unit: str) -> Iterator[Callable[[int, int], None] | None]:
    """A function (done, total) that shows a bar with rate and time left; None where no progress is wanted."""
    if args.quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, initial=done, unit=unit, leave=False, file=sys.stderr, delay=1, smoothing=0.05)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
