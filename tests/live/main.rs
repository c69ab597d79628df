//! Real podman, runc, CRIU and MQTT in the lab: the main job, and everything that may go
//! wrong with it. Each test has a lab of its own and ends with the container running
//! exactly once.

mod applications;
mod attached;
mod commands;
mod conflicts;
mod continuity;
mod criu;
mod deaths;
mod devices;
mod engine;
mod failures;
mod farewells;
mod images;
mod insider;
mod joining;
mod kinds;
mod leftovers;
mod moves;
mod networks;
mod outages;
mod scene;
mod sessions;
mod siege;
mod volumes;
