"""From raw videos to clips with tracks (AR-Drag appendix B.1); the command is `python -m training.curate`."""
