"""Render snapshots: for a person at a terminal, as plain text for a pipe, as JSON for a program.

A renderer is handed a frozen value and an `Output`; it never looks at the machine. What a field is
called, in which unit it is and how it is written stands once, in `fields`.
"""
