"""Checks that no fault, input or attacker loses a sample, a checkpoint or a machine.

`make trust` runs them, `make test` their short forms.
"""
