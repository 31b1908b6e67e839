"""The host side of the kernel lab: boots a real multi-node Linux and runs commands in it.

Standard library only: the lab must run from a bare clone, before anything is installed.
"""
