"""``python -m mia_bench``: the command line."""

from mia_bench.cli import main

if __name__ == "__main__":  # processes that compute import this module, too
    main()
