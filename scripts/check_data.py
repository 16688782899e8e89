from fast_style.commands.check_data import main

raise SystemExit(main())
