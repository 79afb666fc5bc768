"""Train a depth model; same as ``mvde train --config configs/base.yaml --output_dir runs/siglip_exp01``."""

import sys

from mvde.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
