"""Small tools that know nothing of tuning."""
