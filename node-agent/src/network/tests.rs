//! Live in the kernel: each test is a node of its own, with a bridge and containers on it.
//!
//! They need root. A test's links and namespaces hang on its thread alone, even the names in
//! /run/netns: whatever becomes of the test, nothing of them is left.

mod conflicting;
mod families;
mod guarding;
mod holding;
mod node;
mod straying;
