"""What all methods share: the problem as arrays, shadow prices, search state, HiGHS, infeasibility explanation."""
