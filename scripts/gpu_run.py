"""Everything that a lent GPU is for, in one call of at most nine minutes: see docs/training.md.

    python scripts/gpu_run.py --pack-data PHOTOS MORE_PHOTOS --out data.zip      # before: one file of at most 28 MB
    python scripts/gpu_run.py --fetch-wheels wheels                              # before: what that machine may lack
    python scripts/gpu_run.py hyperprior --data data.zip --out results --wheels wheels
    python scripts/gpu_run.py hyperprior --beside hyperprior-fast:2 walloc-rgb-16x --data data.zip --out results

Parts run one after the other, each in a process of its own with its own limit; a part that fails or takes too long
does not keep later ones from running. Recipes of `--beside` are trained at the same time, in turn, for their shares of
it, and the GPU tests run beside them. The folder gets `results.json`, `logs.zip`, and each recipe's small checkpoint.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WHEELS = {
    "constriction": "constriction",
    "PyWavelets": "pywt",
    "soundfile": "soundfile",
    "cffi": "cffi",
    "pycparser": "pycparser",
    "tqdm": "tqdm",
    "pytest": "pytest",
    "pluggy": "pluggy",
    "iniconfig": "iniconfig",
    "hypothesis": "hypothesis",
    "sortedcontainers": "sortedcontainers",
}  # distribution -> what it is imported as
SMOKE, TESTS, BENCH = 60.0, 240.0, 80.0  # seconds; training has the rest, and the tests run beside it
MARGIN = 15.0  # for starting and ending processes
STARTING = 12.0  # of a recipe: imports, pictures, what is compiled
ENDING = 10.0  # after the last step: checkpoint, and what is left of a validation
LARGEST = 16_000_000  # bytes of a checkpoint that comes back


class Run:
    """The parts of one call and what came of them.

    Args:
        args: the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.start = time.monotonic()
        self.results: dict[str, Any] = {"seconds": args.seconds, "parts": {}, "checkpoints": {}}
        self.lock = threading.Lock()
        self.work = Path(tempfile.mkdtemp(prefix="gpu_run"))  # what is made on the way, and does not come back
        paths = [str(ROOT / "src")]
        if args.wheels:
            paths.insert(0, str(unpack(args.wheels, self.work / "site")))
        if os.environ.get("PYTHONPATH"):
            paths.append(os.environ["PYTHONPATH"])
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def left(self) -> float:
        """Seconds of the call, in its own scale."""
        return self.args.seconds * self.args.time_scale - (time.monotonic() - self.start)

    def scaled(self, seconds: float) -> float:
        return seconds * self.args.time_scale

    def part(self, name: str, command: list[str], limit: float) -> None:
        """Run one part; the log has its output, the results its exit status, seconds and last lines."""
        limit = max(limit, self.args.floor)
        begin, log = time.monotonic(), self.work / f"{name}.log"
        status: int | str = "failed to start"
        print(f"{name}: at most {limit:.0f} s", flush=True)
        try:
            with log.open("w") as file:
                process = subprocess.Popen(
                    command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=self.environment,
                    start_new_session=True,
                )  # fmt: skip
                status = self._wait(process, limit)
        except OSError as error:
            log.write_text(str(error))
        lines = log.read_text(errors="replace").splitlines()
        with self.lock:
            self.results["parts"][name] = {
                "status": status,
                "seconds": round(time.monotonic() - begin, 1),
                "limit": round(limit, 1),
                "last_lines": lines[-15:],
            }
        print(f"{name}: {status}, {time.monotonic() - begin:.0f} s", flush=True)
        self.write()

    @staticmethod
    def _wait(process: subprocess.Popen[Any], limit: float) -> int | str:
        """Exit status, or what had to be done: a process over its limit is asked to end, then made to."""
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(process.pid, number)
                process.wait(patience)
                return "over its limit"
            except ProcessLookupError:
                return "over its limit"
            except subprocess.TimeoutExpired:
                continue
        return "over its limit, and would not end"

    def write(self) -> None:
        """Results so far, and all logs in one file."""
        with self.lock:
            self.results["total_seconds"] = round(time.monotonic() - self.start, 1)
            (self.out / "results.json").write_text(json.dumps(self.results, indent=1) + "\n")
            with zipfile.ZipFile(self.out / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for log in sorted(self.work.glob("*.log")):
                    archive.write(log, log.name)

    def all(self) -> None:
        """The parts, in order of what they are worth."""
        a, python = self.args, sys.executable
        script = str(Path(__file__).resolve())
        common = ["--device", a.device]
        self.part("smoke", [python, script, a.recipe, "--smoke", *common], self.scaled(SMOKE))
        until = time.monotonic() + self.left() - self.scaled(BENCH + MARGIN)
        tests = [python, "-m", "pytest", "-q", "--tb=short", "tests/gpu", "-p", "no:cacheprovider"]
        beside = [threading.Thread(target=self.part, args=("tests", tests, self.scaled(TESTS)))]
        for lane in a.beside:
            beside.append(threading.Thread(target=self.lane, args=(lane, until)))
        for thread in beside:
            thread.start()
        self.lane([a.recipe], until)
        for thread in beside:
            thread.join()
        bench = [python, str(ROOT / "scripts" / "benchmark.py"), "gpu", "--quick", "--json", str(self.out / "gpu.json")]
        self.part("bench", bench, min(self.scaled(BENCH), max(1.0, self.left())))
        shutil.rmtree(self.work, ignore_errors=True)

    def lane(self, items: list[str], until: float) -> None:
        """Train recipes, NAME or NAME:SHARE, one after the other for their shares of the time until then."""
        names, shares = [], []
        for item in items:
            name, _, share = item.partition(":")
            names.append(name)
            shares.append(float(share or 1))
        for i, name in enumerate(names):
            whole = until - time.monotonic()
            self.training(name, whole * shares[i] / sum(shares[i:]))

    def training(self, name: str, limit: float) -> None:
        """One recipe from its release, by the clock; its small checkpoint comes back."""
        a = self.args
        seconds = max(1.0, limit - self.scaled(STARTING + ENDING))
        folder = self.work / "run" / name
        train = [
            sys.executable, str(ROOT / "scripts" / "train.py"), name, "--from", "release",
            "--data", *map(str, a.data), "--run", str(folder), "--minutes", f"{seconds / 60:.4f}", "--by-clock",
            "--report", "--device", a.device,
        ]  # fmt: skip
        train += ["--val", str(a.val)] if a.val else []
        own = [item.partition(".")[2] for item in a.set if item.startswith(f"{name}.")]
        own += [item for item in a.set if "." not in item.partition("=")[0]]
        train += [word for item in own for word in ("--set", item)]
        train += [] if any(item.startswith("batch=") for item in own) else ["--probe-batch"]
        train += ["--compile"] if a.device != "cpu" and not a.no_compile else []
        self.part(f"train-{name}", train, limit)
        small = folder / "checkpoint.npz"
        if small.exists():
            size = small.stat().st_size
            with self.lock:
                self.results["checkpoints"][name] = size
            if size <= LARGEST:
                shutil.copy(small, self.out / f"{name}.npz")
        self.write()


def smoke(recipe: str, device: str) -> int:
    """What must work for all else to be worth a try: a file there and back, and one step of training."""
    import numpy as np
    import torch

    from latentzip import pretrained
    from latentzip.training.recipes import RECIPES, make_trainer

    about = {"torch": torch.__version__, "numpy": np.__version__, "python": sys.version.split()[0]}
    if device != "cpu":
        about["device"] = torch.cuda.get_device_name(device)
    print(json.dumps(about), flush=True)
    import tempfile
    from dataclasses import replace

    from PIL import Image

    import latentzip as lz

    if pretrained.find(recipe).modality == "image":
        noise = np.random.default_rng(0).integers(0, 255, (128, 160, 3)).astype(np.uint8)
        y = np.asarray(lz.decode(lz.encode(Image.fromarray(noise), codec=recipe, device=device), device=device))
        assert y.shape == noise.shape, y.shape
        with tempfile.TemporaryDirectory() as folder:
            Image.fromarray(noise).save(f"{folder}/noise.png")
            small = replace(RECIPES[recipe], batch=1, crop=64)
            trainer = make_trainer(small, folder, Path(folder) / "run", device=device, init="release")
            trainer.train(None, until_step=1)
            assert trainer.step == 1
    else:
        x = np.random.default_rng(0).normal(0, 0.1, (9000, 2)).astype(np.float32)
        y = lz.decode(lz.encode((x, 44100), codec=recipe, device=device), device=device)
        assert y[0].shape == x.shape, y[0].shape
    print("smoke test passed", flush=True)
    return 0


def fetch_wheels(folder: Path, python: str) -> int:
    """Wheels for Linux on x86-64 and some Python, for a machine that has no network."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", str(folder)]
    command += ["--python-version", python, "--implementation", "cp"]
    for system in ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux1"):
        command += ["--platform", f"{system}_x86_64"]
    return subprocess.run([*command, *WHEELS], check=False).returncode


def unpack(wheels: Path, site: Path) -> Path:
    """Unpack what cannot be imported here: a wheel is a zip file, and nothing has to be installed."""
    missing = {d.lower() for d, module in WHEELS.items() if importlib.util.find_spec(module) is None}
    site.mkdir(parents=True, exist_ok=True)
    for wheel in sorted(wheels.glob("*.whl")):
        if wheel.name.partition("-")[0].replace("_", "-").lower() in missing:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    return site


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", help="what to train on from its release, such as hyperprior")
    parser.add_argument(
        "--beside", action="append", default=[], nargs="+", metavar="RECIPE[:SHARE]",
        help="train these at the same time, one after the other",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, nargs="+", help="packed file, or folders")
    parser.add_argument("--val", type=Path, help="folder or packed file of validation signals")
    parser.add_argument("--out", type=Path, help="folder for the results, or the file that --pack-data writes")
    parser.add_argument("--seconds", type=float, default=530.0, help="of the whole call")
    parser.add_argument("--time-scale", type=float, default=1.0, help="factor on all times: 0.1 for a rehearsal")
    parser.add_argument("--floor", type=float, default=0.0, help="no limit is below so many seconds")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--wheels", type=Path, help="folder of wheels; those that this machine lacks are used")
    parser.add_argument(
        "--set", action="append", default=[], metavar="[RECIPE.]KEY=VALUE", help="passed on to the training"
    )
    parser.add_argument("--pack-data", type=Path, nargs="+", metavar="FOLDER", help="pack training data, and no more")
    parser.add_argument("--limit", type=float, default=28.0, help="of --pack-data, in MB")
    parser.add_argument("--fetch-wheels", type=Path, metavar="DIR", help="download the wheels, and no more")
    parser.add_argument(
        "--python", default=f"3.{sys.version_info.minor}", metavar="3.N", help="that --fetch-wheels is for"
    )
    parser.add_argument("--no-compile", action="store_true", help="train as the modules are")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.fetch_wheels:
        return fetch_wheels(args.fetch_wheels, args.python)
    if args.smoke:
        return smoke(args.recipe, args.device)
    if not args.out or not (args.pack_data or (args.recipe and args.data)):
        parser.error("name a recipe with --data and --out, or --pack-data with --out")
    if args.pack_data:
        from latentzip.training.travel import pack_data

        counts = pack_data(args.pack_data, args.out, 1e6 * args.limit)
        for kind, count in counts.items():
            print(f"{kind}: {count}")
        print(f"{args.out}: {sum(counts.values())} files, {args.out.stat().st_size / 1e6:.2f} MB")
        return 0
    args.data = [path.resolve() for path in args.data]
    args.val = args.val.resolve() if args.val else None
    run = Run(args)
    run.all()
    return 0 if all(part["status"] == 0 for part in run.results["parts"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
