"""The version of this package, also stamped into the code that published repositories carry."""

__version__ = "0.1.0"
