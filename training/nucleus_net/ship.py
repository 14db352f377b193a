"""Put trained weights where the program looks for them, and their checksum into the card.

python training/nucleus_net/ship.py FILE
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2] / "resources"


def main() -> None:
    """Copy the file and rewrite one line of the card."""
    shutil.copyfile(sys.argv[1], ROOT / "weights" / "nucleus-net.safetensors")
    digest = hashlib.sha256(Path(sys.argv[1]).read_bytes()).hexdigest()
    card = ROOT / "nuclei" / "nucleus_net.toml"
    text = card.read_text(encoding="utf-8")
    card.write_text(re.sub(r'sha256 = "\w*"', f'sha256 = "{digest}"', text), encoding="utf-8")
    print(digest)


if __name__ == "__main__":
    main()
