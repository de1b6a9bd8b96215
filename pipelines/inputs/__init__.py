"""What a user gives: arguments, texts and pictures, places of tracks; checked, and put where the model runs."""
