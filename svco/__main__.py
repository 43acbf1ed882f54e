"""``python -m svco``, and the file that launchers start as a rank: ``torchrun … svco/__main__.py train …``."""

import sys
from pathlib import Path

if not __package__:  # started as a file
    _here = Path(__file__).resolve().parent
    # Python looks for imports in the folder of the file it starts, where data, model and the like would hide others'.
    if str(_here) in sys.path:
        sys.path.remove(str(_here))
    if str(_here.parent) not in sys.path:
        sys.path.insert(0, str(_here.parent))

from svco.cli import main

if __name__ == "__main__":
    main()
