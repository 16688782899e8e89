from fast_style.commands.optimize import main

raise SystemExit(main())
