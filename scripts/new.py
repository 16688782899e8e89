from fast_style.commands.new import main

raise SystemExit(main())
