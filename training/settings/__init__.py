"""Settings of the stages: dataclasses, filled from presets and the command line, which stop at each `main`."""
