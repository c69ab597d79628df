//! The fabric's vocabulary: what its programs say to each other, and the rules by which a
//! running container moves, as pure code.
//!
//! Nothing in here opens a socket, reads a clock, writes a file or throws dice; every other
//! crate of the workspace stands on this one, and it on none of them.
//!
//! # A map, in reading order
//! | module | what it is |
//! |---|---|
//! | [`id`] | names and numbers, one type each: nodes, containers, images, epochs, runs |
//! | [`container`] | what a container is to the fabric, and what a kernel shows of it |
//! | [`topic`] | the topic tree: parsing is the inverse of printing |
//! | [`command`], [`node`] | the public JSON: what people may ask, what nodes say of themselves |
//! | [`join`] | how a node comes to belong |
//! | [`wire`], [`frame`] | the frames between controller and nodes: a version byte, then postcard |
//! | [`timeline`] | the moments of a hand-over, for people |
//! | [`stream`] | how a checkpoint or an image travels: resumable, pulled by its receiver |
//! | [`migration`] | **the heart**: the choreography of a move as machines that tolerate loss, reordering and death of any party |
//!
//! A newcomer reads [`migration`] first: it has the story, one diagram and the laws.

pub mod command;
pub mod container;
pub mod device;
pub mod frame;
pub mod id;
pub mod join;
pub mod migration;
pub mod node;
pub mod overlay;
pub mod stream;
pub mod timeline;
pub mod topic;
pub mod volume;
pub mod wire;
