//! Accounts in files, as mosquitto has them.

use godwit_broker::Config;
use godwit_broker::access::hash;
use tempfile::TempDir;

/// Files of accounts; everybody's password is their name.
pub(crate) struct Accounts {
    folder: TempDir,
}

impl Accounts {
    pub(crate) fn new(users: &[&str], rules: &str) -> Self {
        let accounts = Self { folder: tempfile::tempdir().unwrap() };
        accounts.users(users);
        accounts.rules(rules);
        accounts
    }

    pub(crate) fn users(&self, users: &[&str]) {
        let line = |user: &&str| format!("{user}:{}\n", hash(user.as_bytes()).unwrap());
        self.write("passwords", &users.iter().map(line).collect::<String>());
    }

    pub(crate) fn rules(&self, rules: &str) {
        self.write("rules", rules);
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        let file = |name: &str| Some(self.folder.path().join(name));
        Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            password_file: file("passwords"),
            acl_file: file("rules"),
            ..Config::default()
        }
    }
}
