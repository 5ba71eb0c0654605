"""The report of results that are there already (see pymlp/benchmark_report.py).

``python -m benchmarks.report results/A.json results/B.json --out FOLDER`` writes report.md,
results.json, ratios.png and, where there is water of several sizes, scaling.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pymlp.benchmark_report import read, write_report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args(arguments)
    for path in write_report(options.out, *read(options.files)):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
