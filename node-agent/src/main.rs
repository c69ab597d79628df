//! The node agent's program.
//!
//! The same binary is run under other names too, before anything else exists in the
//! process: as `criu` by runc, as `tar` by CRIU, and as the doctor's probe inside a container.

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    match std::path::Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("criu") => godwit_agent::criu::shim::main(),
        Some("tar") => godwit_agent::criu::tar::main(),
        Some(godwit_agent::doctor::probe::NAME) => godwit_agent::doctor::probe::main(),
        _ => godwit_agent::cli::main(),
    }
}
