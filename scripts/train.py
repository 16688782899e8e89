from fast_style.commands.train import main

raise SystemExit(main())
