"""The chart on a real cluster: ``python -m tests.chart_cluster``."""
