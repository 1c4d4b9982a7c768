"""`python -m finflow STAGE ...`."""

from finflow.cli.main import main

if __name__ == "__main__":
    main()
