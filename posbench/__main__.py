"""python -m posbench: the command line."""

from posbench.commands import main

if __name__ == "__main__":
    main()
