from fast_style.commands.convert import main

raise SystemExit(main())
