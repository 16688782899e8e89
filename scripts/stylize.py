import sys

from fast_style.commands import main

raise SystemExit(main(["stylize", *sys.argv[1:]]))
