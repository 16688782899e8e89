"""`python -m fast_style COMMAND ...`: the same as the installed program."""

from fast_style.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
