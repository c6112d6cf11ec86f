"""A process that takes steps when it is told to, so that two can take turns and not get in each other's way.

Lines of JSON on its standard output answer lines on its standard input: first, unasked, what it found out about
itself; then to each number of steps the seconds they took; at the end of the input its memory.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class Worker:
    """The other end of `serve`, in the process that tells whose turn it is."""

    def __init__(self, script: Path, job: Json, environment: Mapping[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
            text=True,
        )
        self.about = self._answer()

    def seconds(self, num_steps: int) -> float:
        """Seconds for each of so many steps, while all other workers wait."""
        print(num_steps, file=self._process.stdin, flush=True)
        return self._answer()["seconds"] / num_steps

    def processor_seconds(self) -> float:
        """Time that all threads of the process have been running for."""
        numbers = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")

    def finish(self) -> Json:
        """Ends the process; what it says about its memory."""
        self._process.stdin.close()
        memory = self._answer()
        self._process.wait()
        return memory

    def _answer(self) -> Json:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._process.args[:2])} ended with {self._process.wait()}; see above for why")
        return json.loads(line)


def serve(about: Json, steps: Callable[[int], None], memory: Callable[[], Json]) -> None:
    """Answers as said above. `steps` takes so many steps and waits for the last one."""
    forget_peak()
    _say(about)
    for line in sys.stdin:
        start = time.perf_counter()
        steps(int(line))
        _say({"seconds": time.perf_counter() - start})
    _say(memory())


def job_on_standard_output() -> Json:
    """The job, once standard output belongs to `serve` alone: what libraries print there goes to standard error."""
    global _answers
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return json.loads(sys.argv[1])


def forget_peak() -> None:
    """Lets the kernel's count of the peak resident set start anew, without what loading and compiling took."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_resident() -> int:
    """The most bytes of memory since `forget_peak`."""
    [line] = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _say(answer: Json) -> None:
    print(json.dumps(answer), file=_answers, flush=True)


_answers = sys.stdout
