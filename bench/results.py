"""Result files: what was measured where, and whether a newer file is worse than an older one."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.peers import PEERS, version_of
from bench.workloads import WORKLOADS


@dataclass
class Cell:
    """All repeats of one peer at one workload.

    Parameters
    ----------
    peer, workload : str
        Their names.
    figures : dict of str to list of float
        Each figure of the client's report, one value per repeat.
    failure : str
        Why there are no more repeats; empty when all is well.
    """

    peer: str
    workload: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""

    def add(self, figures: dict[str, float]) -> None:
        """Take the figures of one more repeat."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def median(self, figure: str = "") -> float | None:
        """Return the median of a figure, of the workload's headline when none is named."""
        values = self.figures.get(figure or WORKLOADS[self.workload].figure)
        return statistics.median(values) if values else None


@dataclass
class Results:
    """A whole run.

    Parameters
    ----------
    about : dict
        The machine, the versions, the command and the options.
    cells : list of Cell
        In the order of the table of peers.
    skipped : dict of str to str
        The peers that could not run, and what they lack.
    """

    about: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def cell(self, peer: str, workload: str) -> Cell | None:
        """Find a cell."""
        found = (c for c in self.cells if (c.peer, c.workload) == (peer, workload))
        return next(found, None)

    def median(self, peer: str, workload: str, figure: str = "") -> float | None:
        """Find a cell's median: None without the cell or the figure."""
        cell = self.cell(peer, workload)
        return cell.median(figure) if cell else None

    def ratio(self, peer: str, workload: str, beside: str, than: str = "") -> float | None:
        """Divide a peer's headline by that of another peer, or workload, of the same run."""
        ours, theirs = self.median(peer, workload), self.median(beside, than or workload)
        return ours / theirs if ours and theirs else None

    def save(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a file that `save` wrote."""
        raw = json.loads(path.read_text())
        cells = [Cell(**cell) for cell in raw["cells"]]
        return cls(raw["about"], cells, raw["skipped"])


def about_this_machine() -> dict[str, Any]:
    """Describe what the figures depend on."""
    packages = sorted({package for peer in PEERS.values() for package in peer.packages})
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "when": time.strftime("%Y-%m-%d %H:%M %Z"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "huge pages": pages.read_text().strip() if pages.exists() else "unknown",
        "python": platform.python_version(),
        "revision": revision(),
        "versions": {name: version for name in packages if (version := version_of(name))},
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "load before": os.getloadavg()[0],
    }


def revision() -> str:
    """Name the commit that is measured, and whether files differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def processor() -> str:
    """Name the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def regressions(old: Results, new: Results, peer: str, beside: str, tolerance: float) -> list[str]:
    """Say where a newer run is worse than an older one.

    Where both runs have the peer *beside*, figures are compared as ratios to it, so that a slower
    or busier machine is not taken for a slower program.

    Parameters
    ----------
    old, new : Results
        The two runs.
    peer : str
        Whose figures are judged.
    beside : str
        Whose figures they are divided by.
    tolerance : float
        How much worse is still the noise of the machine: 0.1 for a tenth.

    Returns
    -------
    list of str
        One line for each workload that got worse.
    """
    worse = []
    for name, workload in WORKLOADS.items():
        before, after = (run.ratio(peer, name, beside) for run in (old, new))
        unit = f"x {PEERS[beside].title}"
        if before is None or after is None:
            before, after = (run.median(peer, name) for run in (old, new))
            unit = ""
        if not before or not after:
            continue
        loss = after / before - 1 if workload.lower else before / after - 1
        if loss > tolerance:
            worse.append(f"{name}: {before:.4g}{unit} -> {after:.4g}{unit} ({loss:.0%} worse)")
    return worse
