//! The registry with models that are loaded when the test says so.
