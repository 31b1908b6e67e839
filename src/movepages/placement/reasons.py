"""Why the kernel does not let a caller look at a process, in the order in which it looks itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from movepages.values import Standing

_NOT_DUMPABLE = (
    "it is not dumpable: it has asked for that (PR_SET_DUMPABLE), changed its user, or runs a "
    "program that you may not read"
)


def why_not_permitted(standing: Standing) -> tuple[str, str]:
    """Return the reason that a refusal has, and what to do about it.

    __ptrace_may_access in kernel/ptrace.c: ids, dumpability, and then the security modules, of
    which that of capabilities is one. Yama is another, and asks only about attaching.
    """
    return _reason(standing), _remedy(standing)


def _reason(standing: Standing) -> str:
    real, effective, saved = standing.uids
    elsewhere = "another user namespace, or a security module (SELinux, AppArmor) forbids it"
    two_users = f"uids {real}, {effective} and {saved}"
    reasons = (
        (
            standing.may_trace,
            f"you may not look at it, even with CAP_SYS_PTRACE: it belongs to {elsewhere}",
        ),
        (
            len({real, effective, saved}) > 1,
            f"it has the rights of two users ({two_users}), as set-user-ID programs have",
        ),
        (
            real != standing.own_uid,
            f"it runs as another user (uid {real}, and you are uid {standing.own_uid})",
        ),
        (not standing.same_user, "it runs with other group ids than you"),
        (standing.dumpable is False, _NOT_DUMPABLE),
        (not standing.covered, "it has capabilities that you do not have"),
        (True, f"it runs as you, but is not dumpable, or belongs to {elsewhere}"),
    )
    return next(reason for holds, reason in reasons if holds)


def _remedy(standing: Standing) -> str:
    if standing.may_trace:
        return "run outside the container, or change the module's policy"
    if standing.own_uid == 0:
        return "you are root without CAP_SYS_PTRACE: start the container with --cap-add SYS_PTRACE"
    return "run as root (CAP_SYS_PTRACE)"
