from fast_style.commands.export import main

raise SystemExit(main())
