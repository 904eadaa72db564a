//! Room for the benchmarks in `benches/`, run by `make bench`; nothing is exported.
