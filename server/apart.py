"""A call in a process of its own, for what needs a large library once: PyTorch takes 200 MB, Matplotlib 50, and the server lives long.

Where the library is loaded already, as in tests and studies, whose hosts are in this process, it is an ordinary call.
"""

import importlib
import os
import pickle
import subprocess
import sys
from typing import Any

from clmm_core.errors import ClmmError


def apart(library: str, function: str, *arguments: object) -> Any:
    """Return what a function returns; it is imported and called in another process, which ends then.

    Args:
        library: what this process is to be spared, e.g. `torch`.
        function: `module:name`, e.g. `clmm_core.training.model_arrays:new_arrays`.
        arguments: of the function; they and its result are pickled.

    Raises:
        ClmmError: the process ended before it had a result.
        Exception: what the function raised.
    """
    if library in sys.modules:
        return _called(function, arguments)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # -P: the working directory stays off the path.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "server.apart"],
        input=pickle.dumps((function, arguments)),
        stdout=subprocess.PIPE,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise ClmmError(
            f"{function}: expected a result of a process of the server's, it ended with code {done.returncode}: "
            "see its log, and whether the machine is out of memory"
        )
    result, error = pickle.loads(done.stdout)
    if error is not None:
        raise error
    return result


def _called(function: str, arguments: tuple[object, ...]) -> Any:
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(*arguments)


def _answer() -> None:
    """Do the call that standard input holds, and write its result or what it raised to standard output, which nobody else writes to."""
    output, sys.stdout = sys.stdout.buffer, sys.stderr
    function, arguments = pickle.load(sys.stdin.buffer)
    try:
        answer = (_called(function, arguments), None)
    except Exception as error:  # it is raised again in the server
        answer = (None, error)
    pickle.dump(answer, output)


if __name__ == "__main__":
    _answer()
