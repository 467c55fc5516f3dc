//! Black-box tests and benchmarks of Gatepost.
