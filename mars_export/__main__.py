"""`python -m mars_export`."""

from mars_export.cli.main import main

if __name__ == "__main__":
    main()
