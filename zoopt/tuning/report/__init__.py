"""What a run says, while it runs and at its end."""
