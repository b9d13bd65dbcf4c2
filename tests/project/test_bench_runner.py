"""The side-by-side runner measures real programs, reports them, and notices what got worse."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import report
from bench.peers import PEERS, Peer
from bench.results import Cell, Results, regressions
from bench.run import Failed, Options, can_trace, measure, run, system_calls
from bench.workloads import GROWTH, MAIN, Workload, idle

ROOT = Path(__file__).parents[2]
QUICK = Options(repeats=1, seconds=0.01, patience=30)
SMALL = [
    MAIN["W1"],
    replace(MAIN["W2"], amount=4),
    MAIN["W3"],
    replace(MAIN["W4"], amount=300_000),
    replace(MAIN["W5"], amount=1000),
    replace(MAIN["W6"], amount=4),
    MAIN["W7"],
    MAIN["W8"],
    MAIN["W9"],
    replace(GROWTH["busy-10"], amount=3),
    replace(GROWTH["echo-1MiB"], amount=1000),
    replace(GROWTH["idle-10000"], amount=20),
]


def silent(done: int, total: int, text: str) -> None:
    """Show no progress."""


def results(**figures: float) -> Results:
    """Make up a run: W1 of each peer that is named."""
    about = {"versions": {}, "command": "made up"}
    return Results(about, [Cell(peer, "W1", {"cpu_us": [value]}) for peer, value in figures.items()])


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Use the command line as a user would."""
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


PAIRS = [
    pytest.param(peer, workload, id=f"{workload.name}-{peer}")
    for workload in SMALL
    for peer in ("fastcore", "asyncio_protocol", "asyncio_ids")
    if workload.kind in PEERS[peer].kinds.split()
]


@pytest.mark.parametrize(("peer", "workload"), PAIRS)
def test_a_pair_of_processes_gives_the_headline_figure(peer: str, workload: Workload) -> None:
    figures = measure(PEERS[peer], workload, QUICK)
    assert figures["cpu_us"] > 0
    if workload.kind == "idle":
        # So few connections may fit into memory that is there already.
        assert figures["idle_bytes"] >= 0
        assert figures["slowdown"] > 0
    else:
        assert figures[workload.figure] > 0


BLOCKING = [
    pytest.param(peer, workload, id=f"{workload.name}-{peer}")
    for workload in SMALL
    for peer in ("blocking", "blocking_batched", "blocking_ids")
    if workload.kind in PEERS[peer].kinds.split()
]


@pytest.mark.parametrize(("peer", "workload"), BLOCKING)
def test_a_peer_that_blocks_is_driven_too(peer: str, workload: Workload) -> None:
    assert measure(PEERS[peer], workload, QUICK)[workload.figure] > 0


def test_system_calls_of_a_round_trip_are_counted() -> None:
    if obstacle := can_trace():
        pytest.skip(obstacle)
    # At least one to send and one to receive, on both sides.
    assert 4 <= system_calls(PEERS["blocking"], QUICK) < 10


def test_a_call_of_fastcore_takes_three_system_calls_at_each_end() -> None:
    if obstacle := can_trace():
        pytest.skip(obstacle)
    # A look at the sockets, one to receive, one to send; a timer that strikes now and then. On a slow
    # machine a connection has been still for a while before each call, and is looked at before it is used.
    assert round(system_calls(PEERS["fastcore"], replace(QUICK, repeats=3))) == 6


def test_a_run_writes_figures_a_table_and_plots(tmp_path: Path) -> None:
    peers, workloads = "fastcore,asyncio_protocol", "W2,W3,busy-10"
    options = ("--repeats", 2, "--seconds", 0.01, "--out", tmp_path / "few")
    done = bench("run", "--peers", peers, "--workloads", workloads, *options)
    assert done.returncode == 0, done.stderr

    saved = Results.load(tmp_path / "few.json")
    assert {(cell.peer, cell.workload) for cell in saved.cells} == {
        (peer, workload) for peer in peers.split(",") for workload in workloads.split(",")
    }
    assert all(len(cell.figures["rate"]) == 2 for cell in saved.cells)
    text = (tmp_path / "few.md").read_text()
    assert "asyncio, hand-written Protocol" in text
    assert saved.about["command"] in text
    assert "<svg" in (tmp_path / "few.svg").read_text()
    assert "<svg" in (tmp_path / "few-growth.svg").read_text()


def test_a_peer_that_is_not_installed_is_skipped_and_named() -> None:
    absent = Peer("absent", "a peer from the future", ("no-such-distribution",))
    skipped = run([absent], [MAIN["W1"]], QUICK, silent)
    assert skipped.cells == []
    assert skipped.skipped["absent"] == "no-such-distribution"


def test_a_peer_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(Failed, match=r"over 0\.01 s"):
        measure(PEERS["asyncio_protocol"], MAIN["W1"], replace(QUICK, patience=0.01))


def test_a_peer_that_does_not_start_says_why() -> None:
    with pytest.raises(Failed, match="the server didn't start: KeyError: 'broken'"):
        measure(Peer("broken", "broken"), MAIN["W1"], QUICK)


def test_a_failure_stands_in_the_table_where_the_figure_would() -> None:
    failed = Results({"versions": {}}, [Cell("rpyc", "W4", failure="over 90 s")])
    assert "| rpyc (no-delay set) | over 90 s |" in report.markdown(failed)


def test_rows_where_fastcore_loses_are_listed() -> None:
    text = report.losses(results(fastcore=100, asyncio_protocol=80, rpyc=200))
    assert text == "- W1: 1.25x of asyncio, hand-written Protocol"


def test_a_goal_may_be_a_part_of_another_workload() -> None:
    cells = [Cell("fastcore", name, {"rate": [rate]}) for name, rate in (("W7", 90), ("W3", 100))]
    assert "| W7 | at least 0.8x of its own W3, aim 1.0x | 0.90x |  |" in report.goals(Results({}, cells))


def test_a_goal_may_be_for_one_event_loop() -> None:
    rates = {"fastcore": 100, "fastcore_uvloop": 130, "asyncio_ids": 80, "uvloop_ids": 100}
    text = report.goals(Results({}, [Cell(peer, "W6", {"rate": [rate]}) for peer, rate in rates.items()]))
    assert "asyncio, hand-written Protocol with ids, aim 1.3x | 1.25x |  |" in text
    assert "uvloop, hand-written Protocol with ids, aim 1.3x |  | 1.30x |" in text


def test_memory_is_told_in_payloads() -> None:
    cell = Cell("fastcore", "W4", {"client_peak": [96 * 2**20]})
    assert "in payloads: at most 2 | 1.5 |" in report.goals(Results({}, [cell]))


def test_what_is_to_be_flat_is_told_beside_where_it_began() -> None:
    cells = [Cell("fastcore", name, {"cpu_us": [us]}) for name, us in (("busy-1", 40), ("busy-1000", 50))]
    assert "times that with one connection: at most 1.2 | 1.25 |" in report.goals(Results({}, cells))


def test_what_a_peer_has_anyway_is_subtracted() -> None:
    bytes_each = {"fastcore": 7000, "tornado_classic": 5000}
    cells = [Cell(peer, "idle-10000", {"idle_bytes": [size]}) for peer, size in bytes_each.items()]
    assert "over plain Tornado's: at most 4,096 | 2,000 |" in report.goals(Results({}, cells))


def test_a_report_takes_the_place_of_the_last_one_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- few -->\nold\n<!-- /few -->\nbelow\n")
    results(fastcore=100).save(tmp_path / "few.json")
    assert bench("report", tmp_path / "few.json", "--into", page).returncode == 0
    above, below = page.read_text().split((tmp_path / "few.md").read_text())
    assert (above, below) == ("above\n<!-- few -->\n\n", "\n<!-- /few -->\nbelow\n")


def test_a_page_without_a_place_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- few -->\n")
    with pytest.raises(ValueError, match="needs the lines <!-- few --> and <!-- /few -->"):
        report.put_into(page, "few", "new")
    assert page.read_text() == "<!-- few -->\n"


def test_a_slower_program_is_a_regression() -> None:
    old = results(fastcore=100, asyncio_protocol=100)
    new = results(fastcore=130, asyncio_protocol=100)
    (line,) = regressions(old, new, "fastcore", "asyncio_protocol", 0.15)
    assert line.startswith("W1: 1x asyncio, hand-written Protocol -> 1.3x")
    assert regressions(new, old, "fastcore", "asyncio_protocol", 0.15) == []


def test_a_slower_machine_is_no_regression() -> None:
    old = results(fastcore=100, asyncio_protocol=100)
    new = results(fastcore=200, asyncio_protocol=200)
    assert regressions(old, new, "fastcore", "asyncio_protocol", 0.15) == []


def test_without_the_other_peer_plain_figures_are_compared() -> None:
    (line,) = regressions(results(fastcore=100), results(fastcore=200), "fastcore", "rpyc", 0.15)
    assert line == "W1: 100 -> 200 (100% worse)"


def test_the_comparison_of_files_ends_with_a_code_for_scripts(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    results(fastcore=100).save(old)
    results(fastcore=200).save(new)
    assert bench("compare", old, new).returncode == 1
    assert bench("compare", new, old).returncode == 0


def test_the_benchmarks_of_the_parts_run_through() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark", "--benchmark-disable"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]


def test_an_unknown_name_is_refused_in_one_line() -> None:
    done = bench("run", "--peers", "nobody")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["python -m bench: no peer and no workload is called 'nobody'"]


def test_the_growth_rows_have_names_that_tell_their_size() -> None:
    assert list(GROWTH) == [
        *("busy-1", "busy-10", "busy-100", "busy-1000"),
        *("echo-64KiB", "echo-1MiB", "echo-16MiB", "echo-256MiB", "echo-1GiB"),
        idle(10_000).name,
    ]


# ---- Dask over fastcore


@pytest.mark.deadline(120)
async def test_a_message_of_dask_is_measured_by_each_scheme(tmp_path):
    pytest.importorskip("distributed")
    from bench.dask.comms import Workload, exchange, idle, serving
    from bench.dask.echo import make_certificates, meet

    make_certificates(tmp_path)
    for scheme in ("fastcore", "tls"):
        with serving(scheme, tmp_path) as peer:
            comm = await meet(peer.address, tmp_path)
            for workload in (Workload("small", 0, 0, 1), Workload("arrays", 3, 100_000, 1)):
                figures = await exchange(comm, peer, workload.message(), 0.01, os.getpid())
                assert min(figures.values()) > 0
            assert await idle(peer, tmp_path, 10) >= 0
            await comm.close()


def test_the_report_on_dask_has_in_bold_what_isnt_as_wanted():
    pytest.importorskip("distributed")
    from bench.dask.__main__ import PAIRS, markdown
    from bench.dask.comms import PEAKS, WORKLOADS

    figures = {"wall_us": [1.0], "cpu_us": [1.0], "payloads": [1.0], "bytes": [1.0], "calls": [8.0]}
    figures |= {"wall_s": [1.0], "cpu_s": [1.0]}
    names = [*(workload.name for workload in WORKLOADS), *PEAKS, "idle", "system calls", "tasks"]
    cells = [Cell(scheme, name, figures) for pair in PAIRS.items() for scheme in pair for name in names]
    told = markdown(Results({"versions": {}, "command": "made up"}, cells))
    assert "| numpy, 256 KiB | 1 | 1 | **1.00** | 0.85 |" in told
    assert "| numpy, 1 MiB | 1 | 1 | 1.00 | 1.0 |" in told
