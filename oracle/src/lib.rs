//! Nothing by itself: see `tests/` and `examples/` beside this file.
