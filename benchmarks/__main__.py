"""``python -m benchmarks``: all benchmarks, results under benchmarks/results/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import features, memory, neighbours, training

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--name", default="latest", help="results/NAME-features.json and so on")
    name = parser.parse_args().name
    RESULTS.mkdir(exist_ok=True)
    features.main(["--out", str(RESULTS / f"{name}-features.json")])
    neighbours.main(["--out", str(RESULTS / f"{name}-neighbours.json")])
    training.main(["--out", str(RESULTS / f"{name}-training.json")])
    return memory.main(["--out", str(RESULTS / f"{name}-memory.json")])


if __name__ == "__main__":
    sys.exit(main())
