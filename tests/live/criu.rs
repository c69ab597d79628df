//! A criu in the place of a host's, which fails or waits when it is told to.

use std::path::PathBuf;

use godwit_tests::{Fabric, eventually};

/// A dump or restore of ours has its image directory at descriptor 200; what else criu is asked
/// (its version) is answered. It fails once it has the images, as one would that cannot use them.
const SCRIPT: &str = "#!/bin/sh
images=/proc/$$/fd/200
[ -e $images ] || exec /usr/sbin/criu.real \"$@\"
while [ -e /lab/HOST/criu-fails ]; do [ -e $images/core-1.img ] && exit 1; sleep 0.05; done
while [ -e /lab/HOST/criu-waits ]; do touch /lab/HOST/criu-is-waiting; sleep 0.05; done
exec /usr/sbin/criu.real \"$@\"
";

/// The one of a host.
pub(crate) struct Criu {
    share: PathBuf,
}

impl Criu {
    /// Puts it there and has the agent find it fit.
    pub(crate) fn install(fabric: &Fabric, host: &str) -> Self {
        let share = fabric.lab().share().join(host);
        std::fs::create_dir_all(&share).expect("the shared directory");
        std::fs::write(share.join("criu"), SCRIPT.replace("HOST", host)).expect("a script");
        let install = format!(
            "mv /usr/sbin/criu /usr/sbin/criu.real && install -m755 /lab/{host}/criu /usr/sbin/criu"
        );
        fabric.lab().run(host, &["sh", "-c", &install]).ok();
        fabric.terminate(host);
        fabric.start_agent(host);
        fabric.await_fit(host);
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
        for told in ["criu-fails", "criu-waits", "criu-is-waiting"] {
            let _never_told = std::fs::remove_file(self.share.join(told));
        }
    }
}
