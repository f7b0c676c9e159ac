"""Report of a results folder as one HTML file that needs no network: leaderboard, curves, tables and schemes."""
