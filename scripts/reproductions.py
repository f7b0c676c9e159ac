"""posbench reproductions, for use without an installed posbench command."""

from posbench.commands import main

if __name__ == "__main__":
    main("reproductions")
