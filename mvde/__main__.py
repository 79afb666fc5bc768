"""``python -m mvde``: the command line."""

from mvde.cli import main

if __name__ == "__main__":
    main()
