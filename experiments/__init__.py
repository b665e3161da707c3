"""Experiments that show what each readout can and cannot see; run them with `python -m experiments`."""
