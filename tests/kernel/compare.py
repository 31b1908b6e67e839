"""Makes one call in the model and in the oracle, and tells in what they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import oracle
from photograph import differences, photograph
from rows_met import Seen, rows_met

from movepages.abi import UNWRITTEN

if TYPE_CHECKING:
    from oracle import Answer, Call
    from random_machines import RandomMachine


@dataclass
class Comparison:
    """A call made in both: the differences in sentences, and the rows of the table it met."""

    told: list[str]
    answer: Answer
    rows: set[str]


def run_call(random_machine: RandomMachine, semantics: str, call: Call) -> Comparison:
    """Make a call in the oracle and in the model, and check the model's counts."""
    with random_machine.others_migrate():
        found = _run_call(random_machine, semantics, call)
    random_machine.machine.check()
    return found


def _run_call(random_machine: RandomMachine, semantics: str, call: Call) -> Comparison:
    machine = random_machine.machine
    world = photograph(machine, lsm_refuses=random_machine.lsm_refuses)
    seen = Seen(world, call)
    expected = oracle.move_pages(semantics, world, call)
    ret, status = call_model(random_machine, call)
    told = [] if ret == expected.ret else [f"ret: expected {expected.ret}, found {ret}"]
    for index, value in enumerate(status.tolist()):
        wanted = expected.status.get(index, UNWRITTEN)
        if value != wanted:
            told.append(f"status[{index}]: expected {wanted}, found {value}")
    after = photograph(machine, lsm_refuses=random_machine.lsm_refuses)
    return Comparison(told + differences(world, after), expected, rows_met(seen, expected))


def call_model(random_machine: RandomMachine, call: Call) -> tuple[int, np.ndarray]:
    """Make the call in the model, with arrays that end where the call says."""
    machine = random_machine.machine
    user = machine.user
    status = np.full(max(len(call.pages), call.status_writable), UNWRITTEN, dtype=np.int32)
    arrays = [
        user.place(np.array(call.pages, dtype=np.uint64)),
        user.place(np.array(call.nodes or (), dtype=np.int32)),
        user.place(status, writable=call.status_writable),
    ]
    pointers = [array.pointer for array in arrays]
    if call.nodes is None:
        pointers[1] = 0
    caller = machine.task_structs[call.caller]
    ret = machine.call(caller, "move_pages", call.pid, call.nr_pages, *pointers, call.flags)
    for array in arrays:
        user.forget(array)
    return ret, status
