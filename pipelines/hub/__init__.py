"""To and from the Hub: client, generated code, cards, datasets and the Space."""
