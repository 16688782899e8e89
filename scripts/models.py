from fast_style.commands.models import main

raise SystemExit(main())
