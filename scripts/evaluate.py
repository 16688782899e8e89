from fast_style.commands.evaluate import main

raise SystemExit(main())
