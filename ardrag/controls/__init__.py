"""Controls: what the model is shown of the tracks and the picture. One interface, one file each, named by `build`."""
