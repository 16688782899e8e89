from fast_style.commands.gallery import main

raise SystemExit(main())
