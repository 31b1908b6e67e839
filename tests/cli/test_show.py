from __future__ import annotations

import json

from movepages.values import Mapping

PID = "1234"
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
    assert "more, --all" not in answer.out


def test_the_thirty_first_mapping_is_left_out_and_said_to_be(run, machine):
    """With 31 mappings the one with most resident memory is first, and one is left out."""
    machine.mapped = one_page_each(31)
    lines = run("show", PID).out.splitlines()
    assert lines[0] == "python3 (1234): 128K resident in 31 mappings"
    assert lines[5].startswith(f"{31 << 20:x} ")
    assert lines[-1] == "... 1 more, --all"


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
