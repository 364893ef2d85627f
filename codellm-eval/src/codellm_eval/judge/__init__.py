"""Verdicts: whether a program solves a problem, run where it can do no harm."""
