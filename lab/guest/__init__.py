"""What runs inside the guest: `pid1` sets the machine up, `agent` runs the commands.

Both run as `python -I -S` and import as little as they can: an import costs about
twenty times its host time under emulation.
"""
