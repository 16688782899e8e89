from fast_style.commands.sweep import main

raise SystemExit(main())
