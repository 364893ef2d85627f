"""Processes of the system, which may end while they are looked at."""

import psutil


def name(process: psutil.Process) -> str:
    """The program's name; empty where the process has ended since it was listed."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def running(process: psutil.Process) -> bool:
    """Whether it still computes: not ended, and no zombie that waits to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
