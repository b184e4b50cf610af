"""`make proto`: write the Python stubs of the host API, below the folder given, into `client/host/v1`.

The files are given to the compiler under the path of the package that the stubs live in, so that what it generates imports from there and
nothing has to be rewritten afterwards.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

FILES = Path(__file__).parent / "clmm" / "host" / "v1"
PACKAGE = "client/host/v1"


def generate(root: Path) -> int:
    """Write the stubs below `root`, and return the compiler's exit code."""
    (root / PACKAGE).mkdir(parents=True, exist_ok=True)
    outputs = [f"--{kind}_out={root}" for kind in ("python", "pyi", "grpc_python")]
    names = [f"{PACKAGE}/{file.name}" for file in sorted(FILES.glob("*.proto"))]
    return int(protoc.main(["protoc", f"-I{PACKAGE}={FILES}", *outputs, *names]))


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]))
