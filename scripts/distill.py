import sys

from fast_style.commands import main

if __name__ == "__main__":
    raise SystemExit(main(["distill", *sys.argv[1:]]))
