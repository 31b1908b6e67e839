"""Each bad command line: its exit code, and what it is told on standard error in one line."""

from __future__ import annotations

import pytest

HEAP = "7f12a4000000"
USAGE, NO_PROCESS, NOT_PERMITTED, CANNOT = 2, 3, 4, 5

LINES = [
    ("shwo 1234", USAGE, "No such command 'shwo'"),
    ("nodes 1", USAGE, "unexpected extra argument (1)"),
    ("nodes --jsno", USAGE, "No such option '--jsno'"),
    ("show", USAGE, "Missing argument 'TARGET'"),
    ("show 0", USAGE, "'0' is not a pid"),
    ("show -5", USAGE, "'-5': pids, addresses and nodes are not negative"),
    ("show bash", USAGE, "'bash' is not a pid"),
    ("show 1_0", USAGE, "'1_0' is not a pid"),
    ("show ١٢", USAGE, "'١٢' is not a pid"),
    ("show name:", USAGE, "'name:' names no process"),
    ("show 1234,", USAGE, "is not a pid"),
    ("show name:nginx", NO_PROCESS, "there is no process name:nginx"),
    ("show 1234 --by page", USAGE, "'page' is not one of 'mapping', 'kind', 'file', 'thread'"),
    ("show 1234 --sort far", USAGE, "a list by mapping has no order 'far'; it has resident"),
    ("show 1234 --sort node", USAGE, "a list by mapping has no order 'node'"),
    ("show 1234 --by thread --pages", USAGE, "cannot list by thread"),
    ("show 1234 --watch 0", USAGE, "'0' is nothing; give more than 0"),
    ("show 1234 --watch soon", USAGE, "'soon' is not a duration"),
    ("show 2147483647", NO_PROCESS, "there is no process 2147483647"),
    ("show 2147483648", USAGE, "'2147483648' is not a pid"),
    ("show 999999999", NO_PROCESS, "there is no process 999999999"),
    ("show 2", CANNOT, "process 2 (kthreadd) is a kernel thread and has no memory of its own"),
    ("query 1234", USAGE, "Missing argument 'ADDRESS|START-END...'"),
    ("query 1234 zz", USAGE, "'zz' is not an address; write it in hexadecimal"),
    ("query 1234 -1000", USAGE, "'-1': pids, addresses and nodes are not negative"),
    ("query 1234 2000-1000", USAGE, "range '2000-1000' ends before it starts or is empty"),
    ("query 1234 1000-1000", USAGE, "range '1000-1000' ends before it starts or is empty"),
    ("query 1234 1000-", USAGE, "'' is not an address"),
    ("query 1234 1000+4X", USAGE, "'4X' is not a size"),
    ("query 1234 10000000000000000", USAGE, "above the 64-bit address space"),
    ("query 1234 fffffffffffff000+8K", USAGE, "above the 64-bit address space"),
    ("query 2 1000", CANNOT, "is a kernel thread"),
    ("query 999999999 1000", NO_PROCESS, "there is no process 999999999"),
    ("move 1234 1000", USAGE, "Missing option '--to'"),
    ("move 1234 --to 1", USAGE, "give addresses or ranges, or else --all-mappings"),
    ("move 1234 --to 1 --all-mappings 1000", USAGE, "give addresses or ranges, or else"),
    ("move 1234 --to= --all-mappings", USAGE, "--to '' names no node"),
    ("move 1234 --to !all --all-mappings", USAGE, "--to '!all' names no node"),
    ("move 1234 --to one --all-mappings", USAGE, "'one' in 'one' is not a node"),
    ("move 1234 --to 1-0 --all-mappings", USAGE, "range '1-0' in '1-0' is reversed"),
    ("move 1234 --to +2 --all-mappings", USAGE, "there is no +2"),
    ("move 1234 --to same --all-mappings", USAGE, "'same' (numactl's previous mask)"),
    ("move 1234 --to netdev:eth0 --all-mappings", USAGE, "'netdev:' (the node of a device)"),
    ("move 1234 --to 0,4 --all-mappings", USAGE, "node 4 in '0,4' does not exist"),
    ("move 1234 --to 3 --all-mappings", USAGE, "--to: node 3 has no memory"),
    ("move 1234 --to 1,2 --all-mappings", NOT_PERMITTED, "node 2 lies outside the cpuset"),
    ("move 2 --to 1 --all-mappings", CANNOT, "is a kernel thread"),
    ("move 999999999 --to 1 --all-mappings", NO_PROCESS, "there is no process 999999999"),
    ("spread 1234", USAGE, "Missing option '--to'"),
    ("spread --to 1", USAGE, "Missing argument 'TARGET'"),
    ("spread 1234 --to=", USAGE, "--to '' names no node"),
    ("spread 1234 --to 0-4", USAGE, "node 4 in '0-4' does not exist"),
    ("spread 1234 --to 0-2", NOT_PERMITTED, "node 2 lies outside the cpuset"),
    ("spread 1234 --to 0,3", USAGE, "--to: node 3 has no memory"),
    ("spread 1234 --to 0,1 --weights=", USAGE, "'' are not weights; give whole numbers from 1 on"),
    ("spread 1234 --to 0,1 --weights 1,0", USAGE, "'1,0' are not weights"),
    ("spread 1234 --to 0,1 --weights 1,-1", USAGE, "'1,-1' are not weights"),
    ("spread 1234 --to 0,1 --weights 1,1.5", USAGE, "'1,1.5' are not weights"),
    ("spread 1234 --to 0,1 --weights 1,2,3", USAGE, "has 3 weights for 2 nodes (0-1)"),
    ("spread 1234 --to 0,1 --weights 1", USAGE, "has 1 weights for 2 nodes (0-1)"),
    ("spread 1234 --to 0,1 --all-mappings 1000", USAGE, "give addresses or ranges, or else"),
    ("spread 2 --to 1", CANNOT, "is a kernel thread"),
    ("spread 999999999 --to 1", NO_PROCESS, "there is no process 999999999"),
    ("pack", USAGE, "Missing argument 'TARGET'"),
    ("pack 1234 --prefer=", USAGE, "--prefer '' names no node"),
    ("pack 1234 --prefer 4", USAGE, "node 4 in '4' does not exist"),
    ("pack 1234 --prefer 3", USAGE, "--prefer: node 3 has no memory"),
    ("pack 1234 --prefer 2", NOT_PERMITTED, "node 2 lies outside the cpuset"),
    ("pack 1234 --all-mappings --heap", USAGE, "give addresses or ranges, or else"),
    ("pack 2", CANNOT, "is a kernel thread"),
    ("pack 999999999", NO_PROCESS, "there is no process 999999999"),
    ("migrate 1234 --to 1", USAGE, "Missing option '--from'"),
    ("migrate 1234 --from= --to 1", USAGE, "--from '' names no node"),
    ("migrate 1234 --from 4 --to 1", USAGE, "node 4 in '4' does not exist"),
    ("migrate 1234 --from 0 --to=", USAGE, "--to '' names no node"),
    ("migrate 1234 --from 0 --to 3", USAGE, "--to: node 3 has no memory"),
    ("migrate 1234 --from 0 --to 2", NOT_PERMITTED, "node 2 lies outside the cpuset"),
    ("migrate 2 --from 0 --to 1", CANNOT, "is a kernel thread"),
    ("migrate x --from 0 --to 1", USAGE, "'x' is not a pid; give a number, or name:"),
    ("migrate name:x --from 0 --to 1 --kernel", USAGE, "'name:x' is not a pid"),
    ("migrate 1234 --from 0 --to 1 --kernel --heap", USAGE, "so --heap cannot be kept"),
    ("migrate 1234 --from 0 --to 1 --kernel --file x", USAGE, "so --file cannot be kept"),
    ("migrate 1234 --from 0 --to 1 --kernel --max-pages 1", USAGE, "so --max-pages cannot"),
    ("migrate 1234 --from 0 --to 2 --kernel", NOT_PERMITTED, "node 2 lies outside the cpuset"),
    ("migrate 2 --from 0 --to 1 --kernel", CANNOT, "is a kernel thread"),
    ("explain EWHAT", USAGE, "'EWHAT' is neither a status nor an errno of these calls: EPERM"),
    ("explain 0", USAGE, "'0' is neither a status nor an errno"),
    ("explain -4", USAGE, "'-4' is neither a status nor an errno"),
    ("explain ENOENT EFAULT", USAGE, "unexpected extra argument (EFAULT)"),
]


@pytest.mark.parametrize(("line", "code", "told"), LINES, ids=[line for line, _, _ in LINES])
def test_bad_command_line(run, line, code, told):
    """It ends with its code, prints nothing on standard output, and one line that says why."""
    answer = run(*line.split())
    assert told in answer.err
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith("movepages: ")
    assert answer.err.count("\n") == 1


def test_usage_errors_name_the_help_that_explains(run):
    """The line says which --help to read: that of the subcommand."""
    assert run("show").err.endswith(" (see movepages show --help)\n")
