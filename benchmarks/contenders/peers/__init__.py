"""What a user would pick instead, in the environment that ``benchmarks/peers/prepare`` makes."""
