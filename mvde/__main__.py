"""Entry point of ``python -m mvde``."""

from mvde.cli import main

if __name__ == "__main__":
    main()
