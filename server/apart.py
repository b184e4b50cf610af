"""A call in a process of its own, for what needs a large library once: PyTorch takes 200 MB, Matplotlib 50, and the server lives long.

Where the library is loaded already, as in tests and studies, whose hosts are in this process, it is an ordinary call.
"""

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from clmm_core.errors import ClmmError


class Apart:
    """One call to come. The process starts now and loads what it needs; without a call it ends with this object."""

    def __init__(self, library: str, function: str) -> None:
        """Start the process.

        Args:
            library: what this process is to be spared, e.g. `torch`.
            function: `module:name`, e.g. `clmm_core.training.model_arrays:new_arrays`.
        """
        self._function = function
        self._process: subprocess.Popen[bytes] | None = None
        if library not in sys.modules:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            # -P: the working directory stays off the path.
            command = [sys.executable, "-P", "-m", "server.apart", function]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def __call__(self, *arguments: object) -> Any:
        """Return what the function returns; arguments and result are pickled. Called once.

        Raises:
            ClmmError: the process ended before it had a result.
            Exception: what the function raised.
        """
        if self._process is None:
            return _found(self._function)(*arguments)
        output, _ = self._process.communicate(pickle.dumps(arguments))
        if self._process.returncode != 0:
            raise ClmmError(
                f"{self._function}: expected a result of a process of the server's, it ended with code {self._process.returncode}: "
                "see its log, and whether the machine is out of memory"
            )
        result, error = pickle.loads(output)
        if error is not None:
            raise error
        return result


def _found(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _answer(name: str) -> None:
    """Call a function with what standard input holds; write its result or what it raised to standard output, which is nobody else's."""
    output, sys.stdout = sys.stdout.buffer, sys.stderr
    function = _found(name)
    given = sys.stdin.buffer.read()
    if not given:  # the server has no use for it any more
        return
    try:
        answer = (function(*pickle.loads(given)), None)
    except Exception as error:  # it is raised again in the server
        answer = (None, error)
    pickle.dump(answer, output)


if __name__ == "__main__":
    _answer(sys.argv[1])
