"""Operations on the placement of pages. They know a `Machine`, never which one it is.

pages = select.anon() & select.on_node(0)
plan = placement.plan(machine, machine.task(pid), pages, {1})
ledger = placement.execute(plan, machine)
"""

from movepages.placement.follow import plan_follow
from movepages.placement.from_log import plan_from_log
from movepages.placement.keep_near import keep_near
from movepages.placement.migrate import plan_migration
from movepages.placement.mover import Progress, execute
from movepages.placement.options import Options
from movepages.placement.pack import plan_pack
from movepages.placement.planning import in_turn, make_plan, plan
from movepages.placement.spread import plan_spread

__all__ = [
    "Options",
    "Progress",
    "execute",
    "in_turn",
    "keep_near",
    "make_plan",
    "plan",
    "plan_follow",
    "plan_from_log",
    "plan_migration",
    "plan_pack",
    "plan_spread",
]
