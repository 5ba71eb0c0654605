"""``python -m benchmarks``: all benchmarks, results and a report under benchmarks/results/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import contestants, features, memory, neighbours, training
from pymlp.benchmark_report import read, write_report

RESULTS = Path(__file__).parent / "results"
TIMED = {"features": features, "neighbours": neighbours, "training": training}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--name", default="latest", help="results/NAME-features.json and so on, report in NAME/"
    )
    name = parser.parse_args(arguments).name
    RESULTS.mkdir(exist_ok=True)
    files = {part: RESULTS / f"{name}-{part}.json" for part in TIMED}
    for part, script in TIMED.items():
        script.main(["--out", str(files[part])])
    memory.main(["--out", str(RESULTS / f"{name}-memory.json")])
    notes = contestants.missing("torchani", "dscribe")
    for path in write_report(RESULTS / name, *read(files.values()), notes):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
