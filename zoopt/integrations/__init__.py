"""Other libraries. Each module is imported only when it is used."""
