"""PostgreSQL under pgbench, moved around nodes while it works. Run on a machine with four of them.

    database.py DIRECTORY TRANSACTIONS

DIRECTORY is empty, or has a cluster in `data` that initdb made. Root starts the server as nobody,
and moves pages that are shared. Four clients make TRANSACTIONS each; until they are done the shared
buffers and the memory of each backend are moved to node 1, spread over all nodes, and put back,
again and again.

Prints one line of JSON: what moved, what stayed and why, and what the database says of itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from movepages.abi import status_name
from movepages.errors import NoSuchProcessError
from movepages.linux.machine import LinuxMachine
from movepages.placement import Options, execute, plan, plan_spread, select
from movepages.placement.target import find, parse_targets
from movepages.placement.undo import undo

BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
NOBODY = "65534"
AS_NOBODY = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")
CLIENTS = 4
SCALE = 2
SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "huge_pages": "off",
    "fsync": "off",
    "max_connections": "20",
    "log_connections": "on",
}
MACHINE = LinuxMachine()
SUMS = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
       (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)
"""


def command(name, *arguments):
    """Return a command line of PostgreSQL's, for a user who is not root."""
    return [*(AS_NOBODY if os.geteuid() == 0 else ()), str(BINARIES / name), *map(str, arguments)]


def output_of(name, *arguments):
    """Run a program of PostgreSQL's and return what it prints; it must succeed."""
    done = subprocess.run(
        command(name, *arguments), capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


class Server:
    """A running server, and the log that it writes."""

    def __init__(self, directory):
        """Start it, and wait until it takes connections."""
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        self.directory = directory
        self.log = []
        self.process = subprocess.Popen(
            command("postgres", "-D", directory / "data", "-k", directory, *settings),
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        self.wait_for("ready to accept connections")

    def wait_for(self, words, times=1):
        """Read the log until some words have come so often."""
        while times and (line := self.process.stderr.readline()):
            self.log.append(line.rstrip())
            times -= words in line
        if times:
            raise SystemExit("the server has ended:\n" + "\n".join(self.log))

    def connection(self):
        """Return the options that connect a client to it."""
        return ("-h", self.directory, "-U", "nobody")

    def stop(self):
        """Let it end in order, and return its complaints."""
        self.process.send_signal(2)  # SIGINT: a fast shutdown
        rest, _ = self.process.stderr.read(), self.process.wait()
        lines = [*self.log, *rest.splitlines()]
        return [line for line in lines if re.search(r" (WARNING|ERROR|FATAL|PANIC): ", line)]


@contextmanager
def running(directory):
    """Make a cluster where there is none, and yield a server on it."""
    if not (directory / "data").exists():
        output_of("initdb", "-D", directory / "data", "-U", "nobody", "-A", "trust", "-N")
    server = Server(directory)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def move_around(pid, report):
    """Move all that the processes of a server have, and put it back; count what became of it."""
    tasks = find(MACHINE, parse_targets(f"tree:{pid}")).tasks
    pages = select.shm() | (select.anon() & select.writable())
    ledgers = []
    for task in tasks:
        for name, planned in (
            ("moved", lambda of: plan(MACHINE, of, pages, {1})),
            ("spread", lambda of: plan_spread(MACHINE, of, pages, MACHINE.topology().online)),
        ):
            ledgers.append(carried_out(planned, task, report[name]))
    for ledger in filter(None, reversed(ledgers)):
        carried_out(lambda _task, of=ledger: undo(of), None, report["put back"])
    report["rounds"] += 1
    report["processes"] = max(report["processes"], len(tasks))


def carried_out(planned, task, counts):
    """Make a plan and carry it out; count what became of pages. None if the process has ended."""
    try:
        account = execute(planned(task), MACHINE, Options(shared=os.geteuid() == 0, verify=True))
    except NoSuchProcessError:
        return None
    counts["pages"] += account.moved_pages
    counts["strayed"] += sum(account.strayed().values())
    counts.update({status_name(status): pages for status, pages in account.failed().items()})
    return account


def main(directory, transactions):
    """Run it all and print what was found."""
    with running(directory) as server:
        output_of("pgbench", *server.connection(), "-i", "-q", "-s", SCALE, "postgres")
        bench = subprocess.Popen(
            command("pgbench", *server.connection(), "-n", "-c", CLIENTS, "-t", transactions,
                    "postgres"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        )  # fmt: skip
        server.wait_for("connection authorized", times=1 + CLIENTS)
        report = {"rounds": 0, "processes": 0}
        report |= {step: Counter(pages=0, strayed=0) for step in ("moved", "spread", "put back")}
        while not report["rounds"] or bench.poll() is None:
            move_around(server.process.pid, report)
        said, _ = bench.communicate()
        report["pgbench"] = [
            bench.returncode,
            *re.findall(r"transactions actually processed: (\S+)", said),
            *re.findall(r"number of failed transactions: (\d+)", said),
        ]
        report["sums"] = output_of(
            "psql", *server.connection(), "-AtF", " ", "-c", SUMS, "postgres"
        ).split()
        report["complaints"] = server.stop()
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
