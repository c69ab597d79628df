//! `godwit`: a fabric of nodes from the command line.
//!
//! A client of the controller's REST API, in podman's manners. Reading order:
//! [`args`] is what can be said, [`commands`] what is done about it, one file a
//! subject; [`client`] asks the controller, [`follow`] listens to its events;
//! [`render`] and [`progress`] print, [`human`] words numbers; [`error`] is why
//! something failed, what to do next, and the exit codes.
//!
//! Results go to standard output by [`render::Screen`], everything else to
//! standard error: nothing here calls `println!`, which panics when its reader leaves.

mod api;
mod args;
mod client;
mod commands;
mod error;
mod follow;
mod human;
mod progress;
mod render;
mod timeline;

use std::process::ExitCode;

use clap::Parser;

use crate::error::{Exit, Failure};

fn main() -> ExitCode {
    let args = args::Args::parse();
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(commands::run(args));
            // A read of standard input may still be under way; it is not waited for.
            runtime.shutdown_background();
            outcome
        }
        Err(source) => Err(Failure::Io { what: "start".to_owned(), source }),
    };
    let exit = match outcome {
        Ok(()) => Exit::Done,
        Err(failure) => {
            failure.report();
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}
