"""`python -m bz` is `bz`."""

from bz.cli.app import main

if __name__ == "__main__":
    main()
