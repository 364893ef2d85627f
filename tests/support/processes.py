"""Processes of the system, which may end while they are looked at."""

import math

import psutil


def name(process: psutil.Process) -> str:
    """The program's name; empty where the process has ended since it was listed."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def started(process: psutil.Process) -> float:
    """When it started, in seconds since the epoch; infinity where it has ended since it was listed.

    The order of pids is not that of starts: they begin anew when the last is reached.
    """
    try:
        return process.create_time()
    except psutil.NoSuchProcess:
        return math.inf


def running(process: psutil.Process) -> bool:
    """Whether it still computes: not ended, and no zombie that waits to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
