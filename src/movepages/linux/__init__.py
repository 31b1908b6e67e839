"""The real kernel: one module for each of its interfaces, and `LinuxMachine` on top of them.

Readers take the root directory as an argument (`/` by default), so that a captured tree can stand
in for a machine.
"""
