"""Measure how long loading the model libraries in a thread stops every other thread.

Prints the longest gap between two beats of a 2 ms heart in a second thread, for
a plain import and for `pathotune.models.quiet`, each in a fresh process.
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, threading, time
gaps, stop = [], False
def heart():
    last = time.perf_counter()
    while not stop:
        time.sleep(0.002)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
beat = threading.Thread(target=heart)
beat.start()
start = time.perf_counter()
if sys.argv[1] == "plain":
    import torch
    from pathotune.models._torchvision import mend
    mend()
    import timm
else:
    from pathotune.models._torchvision import import_timm
    import_timm()
taken = time.perf_counter() - start
stop = True
beat.join()
print(max(gaps) * 1e3, taken)
"""


def main(runs: int = 3) -> None:
    medians = {}
    for kind in ("plain", "quiet"):
        rows = []
        for _ in range(runs):
            out = subprocess.run(
                [sys.executable, "-c", CODE, kind], check=True, capture_output=True, text=True
            )
            gap, taken = map(float, out.stdout.split())
            rows.append((gap, taken))
        gap, taken = sorted(rows)[len(rows) // 2]
        medians[kind] = gap
        print(f"{kind:>6} import: longest gap {gap:6.0f} ms, whole import {taken:5.2f} s")
    print(f"ratio plain / quiet: {medians['plain'] / medians['quiet']:.1f}")


if __name__ == "__main__":
    main()
