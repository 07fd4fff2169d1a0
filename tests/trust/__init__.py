"""Checks that no fault, input or attacker causes the loss of a sample, checkpoint or machine.

`make trust` runs them, `make test` their short forms.
"""
