"""How long does a user wait before the first line of work?

    python benchmarks/imports.py

Seconds of `import torch, pyro`, what `import bayesdf` adds, and what each room adds when it is first asked for, in this
order in one process: what a room shares with one before it is counted there. The fastest of several fresh processes.
"""

import json
import subprocess
import sys

REPEATS = 5
ROOMS = ("Detector", "SVI", "data", "analysis", "generators", "inversion", "ledger", "report")
CODE = """
import json, sys, time
start = time.perf_counter(); import torch, pyro; seconds = {"torch, pyro": time.perf_counter() - start}
start = time.perf_counter(); import bayesdf; seconds["bayesdf"] = time.perf_counter() - start
for room in sys.argv[1:]:
    start = time.perf_counter(); getattr(bayesdf, room); seconds[f"bayesdf.{room}"] = time.perf_counter() - start
print(json.dumps(seconds))
"""


def main() -> None:
    """Import, and print seconds and their ratio to torch and pyro."""
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", CODE, *ROOMS], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(REPEATS)
    ]
    base = min(run["torch, pyro"] for run in runs)
    for name in runs[0]:
        seconds = min(run[name] for run in runs)
        print(f"{name:20s} {seconds:6.3f} s  {seconds / base:6.3f}")


if __name__ == "__main__":
    main()
