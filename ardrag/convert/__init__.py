"""Public Wan checkpoints made into this project's; the command is `python -m ardrag.convert`."""
