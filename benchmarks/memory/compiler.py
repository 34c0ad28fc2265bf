"""Runs the C++ compiler, and adds its peak resident size to the file named by ``COMPILER_PEAKS``.

A process of its own, because what a large process starts counts as large before it is replaced.
"""

import os
import resource
import subprocess
import sys

status = subprocess.run(["c++", *sys.argv[1:]], check=False).returncode
with open(os.environ["COMPILER_PEAKS"], "a", encoding="utf-8") as peaks:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=peaks)
sys.exit(status)
