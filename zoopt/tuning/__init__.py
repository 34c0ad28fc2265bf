"""The loop that ``zoopt tune`` runs: settings, data, loop, console, folder, report."""
