"""What every run needs: configuration, data, optimisers, state, the Hub, validation."""
