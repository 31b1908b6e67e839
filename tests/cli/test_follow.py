"""`movepages follow` as a person sees it, and on machines whose threads really go elsewhere."""

from __future__ import annotations

import errno
import io
import json
import signal
from dataclasses import replace

import pytest

from movepages.cli import main
from movepages.kernel import SimulatedMachine
from movepages.placement.records import read_ledgers
from movepages.report.output import Output
from movepages.values import ThreadInfo

PID = "1234"
HEAP = 0x7F12A4000000
PAGE = 4096
SECOND = 10**9


class Running:
    """A machine whose threads run between two looks, each on the CPU that `on` says at a look."""

    def __init__(self, machine, on):
        """Let `on` tell CPUs by the number of a look."""
        self.machine, self.on, self.looks = machine, on, 0

    def __getattr__(self, name):
        """Be the machine in all else."""
        return getattr(self.machine, name)

    def threads(self, pid):
        """Let each thread have run for a second more."""
        self.machine.task(pid)
        self.looks += 1
        cpus = self.on(self.looks)
        time_ns = self.looks * SECOND
        return [ThreadInfo(pid + at, "worker", cpu, time_ns) for at, cpu in enumerate(cpus)]


def followed(machine, *arguments):
    """Run `movepages follow` with some arguments into a pipe; return its exit code and output."""
    stream = io.StringIO()
    code = main(["follow", *arguments], machine=machine, output=Output(stream))
    return code, stream.getvalue()


@pytest.fixture
def elsewhere(machine):
    """Return the machine with its process running on node 1, away from its pages on node 0."""
    return Running(machine, lambda _: (5,))


def test_terminal(run_on_terminal, machine, snapshot):
    """It says where the threads ran, and ends with the pages by outcome."""
    machine.running = [ThreadInfo(1234, "python3", 5, SECOND)]
    assert run_on_terminal("follow", PID, "--over", "all").out == snapshot


def test_pipe(elsewhere, machine, snapshot):
    """What ran between two looks counts, and all pages come to that node."""
    assert followed(elsewhere, PID, "--over", "1ms") == (0, snapshot)
    assert set(machine.pages.values()) == {1}


def test_a_dry_run(elsewhere, machine, snapshot):
    """It shows what would go where, and why; nothing moves."""
    assert followed(elsewhere, PID, "--over", "1ms", "--dry-run") == (0, snapshot)
    assert set(machine.pages.values()) == {0}


def test_threads_on_two_nodes(run, snapshot):
    """Of the process on nodes 0 and 1 the pages on node 0 stay: nothing is to be moved."""
    answer = run("follow", PID, "--over", "all")
    assert (answer.code, answer.out) == (0, snapshot)


def test_a_process_that_sleeps(run, snapshot):
    """It is said that it did not run meanwhile, and its last CPUs count."""
    assert run("follow", PID, "--over", "1ms").out == snapshot


def test_near_enough(elsewhere, machine):
    """Nodes 0 and 1 are 21 apart: that is near enough if one says so."""
    assert followed(elsewhere, PID, "--over", "1ms", "--near", "21")[0] == 0
    assert set(machine.pages.values()) == {0}
    assert followed(elsewhere, PID, "--over", "1ms", "--near", "20")[0] == 0
    assert set(machine.pages.values()) == {1}


def test_only_what_is_selected(elsewhere, machine):
    """Kinds of memory leave the other pages where they are."""
    assert followed(elsewhere, PID, "--over", "1ms", "--stack")[0] == 0
    assert set(machine.pages.values()) == {0}


def test_room_for_some(elsewhere, machine, snapshot):
    """Pages that no nearer node has room for are told apart, and the exit code says it."""
    nodes = tuple(replace(node, free_bytes=3 * PAGE) for node in machine.nodes)
    machine.nodes = replace(machine.nodes, nodes=nodes)
    assert followed(elsewhere, PID, "--over", "1ms", "--dry-run")[1] == snapshot
    assert followed(elsewhere, PID, "--over", "1ms") == (1, snapshot)
    assert sorted(machine.pages.values()) == [0] * 5 + [1] * 3


def test_json(elsewhere):
    """JSON says as much as that of `move`, with what was found of the threads."""
    code, text = followed(elsewhere, PID, "--over", "1ms", "--json")
    said = json.loads(text)
    assert (code, said["to"], said["asked"], said["moved"]) == (0, [1], 8, 8)
    assert said["processes"][0]["remark"] == "Its threads ran 100% on node 1."
    assert [move["reason"] for move in said["plan"]] == ["threads ran 100% on node 1"]


def test_processes_do_not_get_the_same_room():
    """Two processes on node 1 share its room: what the first has taken, the second finds taken."""
    machine = SimulatedMachine("2 x 1M")
    tasks = [machine.spawn(), machine.spawn()]
    for task in tasks:
        task.write(task.mmap(100), 100)
        task.run(1, SECOND)
    filler = machine.spawn(cpu=1)
    filler.write(filler.mmap(100), 100)
    free = machine.free_bytes()[1] // PAGE
    assert 100 < free < 200
    code, text = followed(
        machine, ",".join(str(task.pid) for task in tasks), "--over", "all", "--json"
    )
    machine.check()
    first, second = json.loads(text)["processes"]
    assert (code, first["moved"], second["moved"]) == (1, 100, free - 100)
    assert second["no_room"] == 200 - free


# -- watching ---------------------------------------------------------------------------------

SOON = ("--watch", "1ms", "--pause", "1ms", "--least-gain", "4K")


def test_watching(machine, snapshot):
    """A line for a move, when it is made, and in the end the sum; --max-pages ends it here."""
    hops = Running(machine, lambda look: (1 if look < 9 else 5,))
    code, text = followed(hops, PID, *SOON, "--max-pages", "8")
    assert (code, text.replace("0:01", "0:00")) == (0, snapshot)
    assert set(machine.pages.values()) == {1}


def interrupted_at(last, on):
    """Return where threads run, look by look, with Ctrl-C in the last look."""

    def running(look):
        if look == last:
            signal.raise_signal(signal.SIGINT)
        return on(look)

    return running


def test_watching_who_hops(machine):
    """On another node at each of forty looks: no page moves."""
    hops = Running(machine, interrupted_at(40, lambda look: (1 if look % 2 else 5,)))
    code, text = followed(hops, PID, *SOON)
    assert (code, hops.looks) == (0, 40)
    assert "0 moves: 0 pages (0) moved, 0 pages failed\n" in text
    assert set(machine.pages.values()) == {0}


def test_watching_as_json(elsewhere):
    """Each move is an object on a line, with its time."""
    code, text = followed(elsewhere, PID, *SOON, "--max-pages", "8", "--json")
    (line,) = text.splitlines()
    said = json.loads(line)
    assert (code, said["moved"], said["to"], said["dry_run"]) == (0, 8, [1], False)
    assert said["seconds"] > 0
    assert said["processes"][0]["remark"] == "Its threads ran 100% on node 1."
    assert said["selection"] == "everything"


def test_what_failed_is_explained_in_the_end(elsewhere, machine, snapshot):
    """Pages that others map stay: a count in the line of the move, the remedy once at the end."""
    machine.stuck = {HEAP: -errno.EACCES, HEAP + PAGE: -errno.EACCES}
    code, text = followed(elsewhere, PID, *SOON, "--max-pages", "8")
    assert (code, text.replace("0:01", "0:00")) == (1, snapshot)


def test_ledgers_of_a_watch_are_undone(tmp_path):
    """Pages that went to node 1 and on to node 2 come back to where they were in the beginning."""
    model = SimulatedMachine("3 x 8M")
    task = model.spawn()
    task.write(task.mmap(10), 10)
    hops = Running(model, lambda look: (1 if look < 9 else 2,))
    file = tmp_path / "moves.json"
    line = [str(task.pid), *SOON, "--max-pages", "20", "--ledger", str(file)]
    assert followed(hops, *line)[0] == 0
    assert model.locate(task.pid).bytes_by_node == {2: 10 * PAGE}
    assert len(read_ledgers(file.read_bytes())) == 2
    assert main(["move", "--undo", str(file)], machine=model, output=Output(io.StringIO())) == 0
    assert model.locate(task.pid).bytes_by_node == {0: 10 * PAGE}
    model.check()


def test_ctrl_c_ends_it(machine, capsys):
    """Between two moves Ctrl-C is how watching ends: with the account, and not as a failure."""
    looks = Running(machine, interrupted_at(6, lambda _: (1,)))
    code, text = followed(looks, PID, *SOON)
    assert (code, looks.looks) == (0, 6)
    assert text.endswith("0 moves: 0 pages (0) moved, 0 pages failed\n")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("terminal", "between"), [(True, "\n\n"), (False, "\n")])
def test_the_account_begins_a_line(machine, terminal, between):
    """A terminal shows ^C where the account would begin."""
    looks = Running(machine, interrupted_at(6, lambda _: (1,)))
    stream = io.StringIO()
    arguments = ["follow", PID, *SOON]
    assert main(arguments, machine=looks, output=Output(stream, terminal=terminal)) == 0
    account = "0 moves: 0 pages (0) moved, 0 pages failed\n"
    assert stream.getvalue().endswith(f"every 0.001s{between}{account}")


def test_ctrl_c_in_a_move(machine, capsys):
    """In a move it ends that after its call, and the account has what is left."""
    move_pages = machine.move_pages

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return move_pages(*arguments)

    machine.move_pages = interrupted
    machine.pages = dict.fromkeys(machine.pages, 2)
    code, text = followed(Running(machine, lambda _: (1, 5)), PID, *SOON)
    assert code == 130
    assert text.endswith("1 move: 4 pages (16K) moved, 0 pages failed, 4 pages not tried\n")
    assert "interrupted; the account of what moved is exact" in capsys.readouterr().err


def test_the_end_of_a_process_ends_it():
    """It is told, and with nobody left there is nothing to watch."""
    model = SimulatedMachine("2 x 8M")
    task = model.spawn()
    task.write(task.mmap(10), 10)
    ends = Running(model, lambda look: task.exit() or (0,) if look == 4 else (0,))
    code, text = followed(ends, str(task.pid), *SOON)
    assert code == 0
    assert f"simulated ({task.pid}) has ended\n" in text


def test_warnings_come_once(machine, capsys):
    """What fights each of two moves is said before the first."""
    conditions = replace(machine.conditions(), numa_balancing=1)
    machine.conditions = lambda: conditions
    hops = Running(machine, lambda look: (5 if look < 9 else 1,))
    assert followed(hops, PID, *SOON, "--max-pages", "16")[0] == 0
    assert capsys.readouterr().err.count("NUMA balancing is on") == 1


def test_targets_that_name_nobody(capsys):
    """Of several targets one names no process: that is said, and the others are followed."""
    model = SimulatedMachine("2 x 8M")
    task = model.spawn()
    task.write(task.mmap(10), 10)
    away = Running(model, lambda _: (1,))
    line = (f"{task.pid},99,name:nobody", *SOON, "--max-pages", "10")
    assert followed(away, *line)[0] == 0
    said = capsys.readouterr().err
    assert "warning: there is no process 99\n" in said
    assert "warning: there is no process name:nobody\n" in said
    assert model.locate(task.pid).bytes_by_node == {1: 10 * PAGE}


def test_one_of_several_has_ended_before():
    """It is reported as with `move`, and the others follow."""
    model = SimulatedMachine("2 x 8M")
    tasks = [model.spawn() for _ in range(2)]
    for task in tasks:
        task.write(task.mmap(10), 10)
    ends = Running(model, lambda look: (tasks[0].exit() or (1,)) if look == 2 else (1,))
    pids = f"{tasks[0].pid},{tasks[1].pid}"
    code, text = followed(ends, pids, "--over", "1ms", "--json")
    said = json.loads(text)
    assert (code, said["missing"], said["moved"]) == (1, [str(tasks[0].pid)], 10)


def test_limits_of_a_watch_are_those_of_its_moves(elsewhere, machine):
    """A rate and a time that are generous let the move through; the time is for all of it."""
    limits = ("--limit-rate", "1G/s", "--time-limit", "1h", "--max-pages", "8")
    assert followed(elsewhere, PID, *SOON, *limits)[0] == 0
    assert set(machine.pages.values()) == {1}


def test_a_refusal_ends_the_watch(elsewhere, machine, capsys):
    """Where the kernel refuses the call, it is not asked again, and the exit code says why."""
    machine.refusal = errno.EPERM
    code, text = followed(elsewhere, PID, *SOON)
    assert code == 4
    assert text.endswith("1 move: 0 pages (0) moved, 0 pages failed, 8 pages not tried\n")
    assert "movepages: move_pages: " in capsys.readouterr().err
