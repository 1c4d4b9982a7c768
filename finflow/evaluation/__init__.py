"""Backtests and their statistics: tracks, metrics, intervals, the verdict, and the leak audit."""
