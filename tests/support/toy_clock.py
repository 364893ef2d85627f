"""The clock of toy backends: computing moves it, so that a busy machine shows in no figure."""

import inspect
import time


class Clock:
    """What everything in the process is timed by from now on; with a `step`, in seconds, it moves in such steps."""

    def __init__(self, step=0.0):
        self.now, self.step = time.perf_counter(), step
        time.perf_counter = self.read

    def read(self):
        self.now += 1e-7
        return self.now // self.step * self.step if self.step else self.now

    def compute(self, seconds):
        self.now += seconds


SOURCE = f"import time\n\n\n{inspect.getsource(Clock)}"
"""For a plugin, which imports nothing of the tests."""
