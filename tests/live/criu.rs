//! A criu in the place of edge-b's, which fails or waits when it is told to.

use std::path::PathBuf;

use godwit_tests::{Fabric, eventually};

const SCRIPT: &str = "#!/bin/sh
[ -e /lab/criu-fails ] && exit 1
while [ -e /lab/criu-waits ]; do touch /lab/criu-is-waiting; sleep 0.05; done
exec /usr/sbin/criu.real \"$@\"
";

/// The one of edge-b.
pub(crate) struct Criu {
    share: PathBuf,
}

impl Criu {
    /// Puts it there and has the agent find it fit.
    pub(crate) fn install(fabric: &Fabric) -> Self {
        let share = fabric.lab().share();
        std::fs::write(share.join("criu"), SCRIPT).expect("the shared directory");
        let install =
            "mv /usr/sbin/criu /usr/sbin/criu.real && install -m755 /lab/criu /usr/sbin/criu";
        fabric.lab().run("edge-b", &["sh", "-c", install]).ok();
        fabric.terminate("edge-b");
        fabric.start_agent("edge-b");
        fabric.await_fit("edge-b");
        Self { share }
    }

    /// From now on it fails.
    pub(crate) fn fail(&self) {
        std::fs::write(self.share.join("criu-fails"), "").expect("the shared directory");
    }

    /// From now on it waits before it does anything.
    pub(crate) fn wait(&self) {
        std::fs::write(self.share.join("criu-waits"), "").expect("the shared directory");
    }

    /// Returns once somebody waits for it.
    #[track_caller]
    pub(crate) fn await_waiting(&self) {
        let file = self.share.join("criu-is-waiting");
        eventually("criu is called", || if file.exists() { Ok(()) } else { Err("not yet") });
    }

    /// From now on it works, and goes on where it waited.
    pub(crate) fn work(&self) {
        for told in ["criu-fails", "criu-waits"] {
            let _never_told = std::fs::remove_file(self.share.join(told));
        }
    }
}
