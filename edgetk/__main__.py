"""`python -m edgetk` is `edgetk`."""

from edgetk.toolkit.cli import main

if __name__ == "__main__":
    main()
