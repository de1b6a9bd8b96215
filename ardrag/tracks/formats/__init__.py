"""Other people's track files: one file a format, told apart by what is in them. `files` reads and writes them all."""
