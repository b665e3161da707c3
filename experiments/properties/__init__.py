"""Readouts on properties of molecules: targets, what is measured, and the experiment."""
