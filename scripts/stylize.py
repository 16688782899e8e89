from fast_style.commands.stylize import main

raise SystemExit(main())
