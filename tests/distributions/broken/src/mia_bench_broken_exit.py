raise SystemExit("this plugin ends the process")
