"""Commands as a user types them."""

import os
import subprocess
import sys
from pathlib import Path


def tastemaker(home: Path, *arguments: str) -> str:
    """What `tastemaker` prints in a home of its own.

    Raises:
        CalledProcessError: It fails.
    """
    command = [sys.executable, "-m", "tastemaker.cli", *arguments]
    environment = os.environ | {"TASTEMAKER_HOME": str(home)}
    return subprocess.run(command, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout
