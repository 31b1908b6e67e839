from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace

import pytest

from movepages.cli import main
from movepages.kernel import SimulatedMachine
from movepages.nodeset import NodeSet
from movepages.report.output import Output
from movepages.values import Mapping

PID = "1234"
HEAP = 0x7F12A4000000
STACK = 0x7FFC01B2E000


def one_page_each(number):
    """Return mappings of 8K with one page on node 0, as rising addresses; the last has two."""
    return [
        Mapping(
            index << 20,
            (index << 20) + 8192,
            page_size_bytes=4096,
            pages_by_node={0: 2 if index == number else 1},
        )
        for index in range(1, number + 1)
    ]


def test_pipe(run, snapshot):
    """In a pipe, nothing is cut, and names cannot send escapes to whoever prints them later."""
    assert run("show", PID).out == snapshot


def test_terminal(run_on_terminal, snapshot):
    """On a terminal of 80 columns bars are coloured, and long cells are cut in their middle."""
    answer = run_on_terminal("show", PID)
    assert answer.out == snapshot


def test_all_in_a_pipe(run, snapshot):
    """All mappings come in order of address, as `movepages move` takes them."""
    assert run("show", PID, "--all").out == snapshot


def test_all_on_a_terminal_fits(run_on_terminal):
    """A long list fits the terminal as well."""
    assert max(map(len, run_on_terminal("show", PID, "--all").out.splitlines())) <= 80


def test_thirty_mappings_are_all_there_is(run, machine):
    """With 30 mappings none is left out, and nothing is said of more."""
    machine.mapped = one_page_each(30)
    answer = run("show", PID)
    assert answer.out.count("(anonymous)") == 30
    assert "--all" not in answer.out


def test_the_thirty_first_mapping_is_left_out_and_said_to_be(run, machine):
    """With 31 mappings the one with most resident memory is first, and one is left out."""
    machine.mapped = one_page_each(31)
    lines = run("show", PID).out.splitlines()
    assert lines[0] == "python3 (1234): 128K resident in 31 mappings"
    assert lines[6].startswith(f"{31 << 20:x} ")
    assert lines[-1] == "... 1 more: see --all"


@pytest.mark.parametrize("options", [[], ["--by", "thread"], ["--sort", "node5"], ["--pages"]])
def test_a_node_that_was_not_online(run, machine, options):
    """Pages on a node that came up after the nodes were read are shown as those of any other."""
    machine.nodes = replace(machine.nodes, possible=NodeSet(range(6)))
    machine.mapped = [Mapping(HEAP, HEAP + 32768, page_size_bytes=4096, pages_by_node={5: 6, 0: 2})]
    machine.pages = {HEAP + page * 4096: 5 if page < 6 else 0 for page in range(8)}
    answer = run("show", PID, *options)
    assert answer.code == 0
    (line,) = [line.split() for line in answer.out.splitlines() if line.startswith("  node 5")]
    assert line[-2:] == ["24K", "75%"]
    assert "is near its threads" in answer.out


def test_process_without_pages(run, machine):
    """A process that has nothing in memory yet is shown with nothing, not with an error."""
    machine.mapped = []
    answer = run("show", PID)
    assert answer.code == 0
    assert answer.out.startswith("python3 (1234): 0 resident in 0 mappings\n")


def test_json(run):
    """JSON has every mapping in order of address, addresses as strings, sizes in bytes."""
    answer = json.loads(run("show", PID, "--json").out)
    assert answer["pid"] == 1234
    assert answer["command"] == "python3"
    pages = {"0": 150 + (1 << 20), "1": 512 + (1 << 18), "2": 3}
    assert answer["bytes_by_node"] == {node: number * 4096 for node, number in pages.items()}
    assert answer["resident_bytes"] == sum(pages.values()) * 4096
    assert [mapping["start"] for mapping in answer["mappings"]] == [
        "0x400000",
        "0x10000000",
        "0x7f12a4000000",
        hex(STACK),
    ]
    assert answer["mappings"][1]["path"] == "/dev/shm/\x1b[31mred\udcff"
    assert answer["mappings"][1]["bytes_by_node"] == {"1": 2 << 20}


def test_json_of_a_process_without_mappings(run, machine):
    """An empty list is written as one."""
    machine.mapped = []
    assert json.loads(run("show", PID, "--json").out)["mappings"] == []


@pytest.mark.parametrize("by", ["kind", "file", "thread"])
def test_other_lists(run, by, snapshot):
    """Mappings can be put together by kind or file, and threads are listed."""
    assert run("show", PID, "--by", by).out == snapshot


@pytest.fixture
def striped(machine):
    """Return a machine whose process has 48 pages, most of each eight on a node of their own."""
    nodes = [0] * 8 + [1] * 8 + [2] * 8 + [None] * 8 + [11, 1] * 4 + [0] * 5 + [40] * 3
    machine.pages = {HEAP + at * 4096: node for at, node in enumerate(nodes) if node is not None}
    counts = Counter(node for node in nodes if node is not None)
    machine.mapped = [
        Mapping(HEAP, HEAP + 48 * 4096, "rw-p", page_size_bytes=4096, pages_by_node=counts),
        Mapping(STACK, STACK + 8192, "rw-p", path="[stack]", page_size_bytes=4096),
    ]
    return machine


@pytest.mark.usefixtures("striped")
def test_along_mappings_in_a_pipe(run, snapshot):
    """With --pages a strip tells where along each mapping the nodes change."""
    assert run("show", PID, "--pages").out == snapshot


@pytest.mark.usefixtures("striped")
def test_along_mappings_on_a_terminal(run_on_terminal, snapshot):
    """On a terminal each node has its colour in the strips, the one that its bar has."""
    assert run_on_terminal("show", PID, "--pages").out == snapshot


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        ("resident", "7f12a4000000", "7ffc01b2e000"),
        ("size", "7f12a4000000", "7ffc01b2e000"),
        ("address", "400000", "7ffc01b2e000"),
        ("name", "7f12a4000000", "7ffc01b2e000"),
        ("node0", "7f12a4000000", "7ffc01b2e000"),
        ("node1", "7f12a4000000", "7ffc01b2e000"),
    ],
)
def test_orders(run, order, first, last):
    """The mappings come in the order that --sort names."""
    rows = run("show", PID, "--sort", order).out.split("MAPPING\n")[1].splitlines()
    assert (rows[0].split()[0], rows[-1].split()[0]) == (first, last)


def test_all_in_another_order(run):
    """--all is by address unless another order is asked for."""
    usual = run("show", PID, "--all").out.splitlines()
    other = run("show", PID, "--all", "--sort", "resident").out.splitlines()
    assert usual != other
    assert sorted(usual) == sorted(other)


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("mapping", "time"),
        ("kind", "address"),
        ("thread", "node0"),
        ("file", "nodex"),
        ("kind", ""),
    ],
)
def test_an_order_that_a_list_does_not_have(run, by, order):
    """Such an order is refused with those that there are."""
    answer = run("show", PID, "--by", by, "--sort", order)
    assert (answer.code, answer.out) == (2, "")
    assert f"a list by {by} has no order {order!r}; it has " in answer.err


def test_pages_are_of_mappings(run):
    """--pages looks along mappings, and is refused with another list."""
    answer = run("show", PID, "--by", "kind", "--pages")
    assert answer.code == 2
    assert "--pages looks along mappings" in answer.err


def test_processes_side_by_side(run, snapshot):
    """Several processes have a line each, and one for all; what is not there is named."""
    assert run("show", f"{PID},77,name:python3").out == snapshot


def test_many_nodes_side_by_side(run, machine):
    """With seven nodes and more, what is on each is in one column; with six, in columns."""
    for nodes, heading in ((6, "NODE 5"), (7, "NODES")):
        machine.mapped = [
            Mapping(
                0, 4096 * nodes, page_size_bytes=4096, pages_by_node=dict.fromkeys(range(nodes), 1)
            )
        ]
        assert heading in run("show", f"{PID},77").out.splitlines()[0]


def test_side_by_side_on_different_nodes():
    """A process that has nothing on a node of another's has a dash there."""
    machine = SimulatedMachine("2 x 16M")
    for cpu in (0, 1):
        process = machine.spawn(cpu=cpu)
        process.write(process.mmap(2), 2)
    stream = io.StringIO()
    assert main(["show", "user:root"], machine=machine, output=Output(stream)) == 0
    rows = [line.split()[-5:-2] for line in stream.getvalue().splitlines()]
    assert rows[1:4] == [["8K", "8K", "-"], ["8K", "-", "8K"], ["16K", "8K", "8K"]]


def test_one_of_several_names_is_shown_alone(run):
    """A target that names one process is shown as that process is."""
    assert run("show", "name:python3").out == run("show", PID).out


def test_no_process_of_that_name(run):
    """A target that names none is an error of its own exit code."""
    answer = run("show", "name:nginx")
    assert (answer.code, answer.out) == (3, "")
    assert "there is no process name:nginx" in answer.err


def test_several_that_may_not_be_looked_at(capsys):
    """Where that goes for all, it is said and has its exit code: they have not ended."""
    machine = SimulatedMachine("2 x 16M")
    pids = ",".join(str(machine.spawn().pid) for _ in range(2))
    user = machine.spawn(uid=1000)
    assert main(["show", pids], machine=machine.as_task(user)) == 4
    assert "is not yours to look at" in capsys.readouterr().err
    assert main(["show", f"{pids},{user.pid}"], machine=machine.as_task(user)) == 0
    assert f"not to be looked at: {pids.replace(',', ', ')}" in capsys.readouterr().out


def test_json_of_threads_and_groups(run):
    """JSON has the threads always, and groups where the list is by kind or file."""
    answer = json.loads(run("show", PID, "--json", "--by", "kind").out)
    assert answer["by"] == "kind"
    assert {group["group"]: group["mapping_count"] for group in answer["groups"]} == {
        "file": 1,
        "huge": 1,
        "anon": 1,
        "stack": 1,
    }
    assert [thread["tid"] for thread in answer["threads"]] == [1234, 1235, 1236]
    assert [thread["node"] for thread in answer["threads"]] == [0, 1, 0]
    assert answer["running_by_node"] == {"0": 0.625, "1": 0.375}
    assert answer["huge_bytes"] is None


def test_json_of_several_processes(run):
    """Several processes are in a list, each as a whole."""
    answer = json.loads(run("show", f"{PID},77", "--json").out)
    assert answer["missing"] == ["77"]
    [process] = answer["processes"]
    assert process["pid"] == 1234
    assert "mappings" not in process


@pytest.mark.parametrize("interval", ["0", "0s", "-1", "soon", "1d", ""])
def test_watching_at_an_interval_that_is_none(run, interval):
    """What is no duration, or none at all, is refused."""
    answer = run("show", PID, "--watch", interval)
    assert (answer.code, answer.out) == (2, "")
