"""Every benchmark: ``python -m benchmarks [NAME ...]``; each writes JSON and Markdown to ``benchmarks/results``.

The README quotes the one of the engines.
"""

import argparse
import subprocess
import sys
from contextlib import suppress

from benchmarks import readme
from benchmarks.engines import FILES, keras_file
from benchmarks.models import MODELS
from benchmarks.models.trained import NAMES
from benchmarks.worker import PEERS, ROOT

# Each is a process of its own, so that none inherits the other's memory and threads.
BENCHMARKS = {
    "engines": ["-m", "benchmarks.engines", "--threads", "1", "2", "--batch", "1", "32"],
    "scaling": ["-m", "benchmarks.scaling"],
    "precision": ["-m", "benchmarks.precision"],
    "training": ["-m", "benchmarks.training"],
    "compile_resnet50": ["-m", "benchmarks.compile_resnet50"],
    "edge": ["-m", "benchmarks.edge"],
    "onnx_vs_tf2onnx": ["-m", "benchmarks.onnx_vs_tf2onnx"],
}


def make_peer_files() -> None:
    """The models, and files of them that only TensorFlow can write, where the peers' environment is there."""
    # Models that cannot be fetched are left out.
    subprocess.run([sys.executable, "-m", "tests.real.fetch_models", *NAMES.values()], check=False)
    for name in (*MODELS, *NAMES):
        with suppress(FileNotFoundError):
            keras_file(name)
    if not PEERS.exists():
        print(f"there is no {PEERS}; make it with `make peers`. Engines that need its files are left out.")
        return
    subprocess.run([PEERS, ROOT / "peer_files.py", FILES], check=True)
    subprocess.run([PEERS, ROOT / "peer_models.py", ROOT / ".cache" / "peers"], check=True)


def main() -> None:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"the benchmarks are {', '.join(BENCHMARKS)}. Received: {', '.join(unknown)}")
    make_peer_files()
    failed = [name for name in names if subprocess.run([sys.executable, *BENCHMARKS[name]], check=False).returncode]
    readme.main()
    if failed:
        sys.exit(f"these benchmarks failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
