"""What a model is shown of a clip's tracks while it trains."""
