//! Servers that others wrote, moved to and fro while their clients are at work.
//!
//! Each has a client in `*_load.py` that keeps its connections for all of the moves and checks
//! all that it is told. `docs/APPLICATIONS.md` says what each of them asks for.

mod client;

use godwit_tests::Fabric;

use self::client::Client;
use crate::leftovers::holds_nothing;
use crate::scene::EDGES;

/// How often each is moved; `GODWIT_MOVES` says another number.
const MOVES: usize = 5;

/// A server and how it is started.
struct Application {
    name: &'static str,
    image: &'static str,
    command: &'static [&'static str],
}

/// Starts `$program` with the argument `$0`'s text as its configuration.
macro_rules! configured {
    ($program:literal, $file:literal) => {
        &[
            "sh",
            "-c",
            concat!(
                "printf %s \"$0\" >/etc/application.conf; exec ",
                $program,
                " -c /etc/application.conf"
            ),
            include_str!($file),
        ]
    };
}

const ALL: [Application; 7] = [
    Application {
        name: "redis",
        image: "applications:1",
        command: &["redis-server", "--protected-mode", "no", "--save", ""],
    },
    Application {
        name: "mariadb",
        image: "applications:1",
        command: &[
            "mariadbd",
            "--no-defaults",
            "--user=root",
            "--datadir=/srv/mariadb",
            "--skip-grant-tables",
            "--skip-name-resolve",
            "--socket=/run/mariadb.sock",
            "--innodb-buffer-pool-size=16M",
            "--innodb-undo-tablespaces=0",
            "--innodb-data-file-path=ibdata1:4M:autoextend",
            "--innodb-autoextend-increment=1",
            "--innodb-log-file-size=4M",
        ],
    },
    Application {
        name: "nginx",
        image: "applications:1",
        command: configured!("nginx", "nginx.conf"),
    },
    Application {
        name: "mosquitto",
        image: "applications:1",
        command: configured!("mosquitto", "mosquitto.conf"),
    },
    Application {
        name: "websocket",
        image: "applications:1",
        command: &["node", "-e", include_str!("websocket_server.js")],
    },
    Application {
        name: "asyncio",
        image: "applications:1",
        command: &["python3", "-c", include_str!("asyncio_server.py")],
    },
    Application { name: "threads", image: "threads:1", command: &["7000"] },
];

/// Those that `GODWIT_APPLICATIONS` names (`redis,nginx`); all of them without it.
fn chosen() -> Vec<Application> {
    let only = std::env::var("GODWIT_APPLICATIONS").ok();
    let is_wanted = |one: &Application| {
        only.as_ref().is_none_or(|names| names.split(',').any(|name| name == one.name))
    };
    let chosen: Vec<_> = ALL.into_iter().filter(is_wanted).collect();
    assert!(!chosen.is_empty(), "GODWIT_APPLICATIONS names none that there is: {only:?}");
    chosen
}

fn moves() -> usize {
    std::env::var("GODWIT_MOVES").map_or(MOVES, |text| text.parse().expect("a number"))
}

/// Loads what `scripts/lab workload` and `scripts/lab applications` built.
fn load_images(fabric: &Fabric) {
    for (file, made_by) in [("threads.tar", "workload"), ("applications/image.tar", "applications")]
    {
        let image = fabric.lab().checkout().join("target/workload").join(file);
        assert!(image.exists(), "{} is missing: run scripts/lab {made_by}", image.display());
        fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    }
}

/// Starts it on edge-a and its client on the host `client`.
fn start(fabric: &Fabric, application: &Application) -> Client {
    let Application { name, image, command } = application;
    let run = ["run", "--name", name, "--node", "edge-a", image];
    fabric.godwit(&[&run[..], command].concat()).ok();
    let ip = fabric.container(name)["ip"].as_str().expect("an address").to_owned();
    Client::start(fabric.lab(), name, &ip, fabric.log(&format!("{name}-client")))
}

#[test]
fn applications_move_to_and_fro_and_their_clients_do_not_notice() {
    let fabric = Fabric::start(EDGES);
    load_images(&fabric);
    let clients: Vec<_> = chosen().iter().map(|one| start(&fabric, one)).collect();
    clients.iter().for_each(Client::goes_on);
    for n in 1..=moves() {
        let to = if n % 2 == 1 { "edge-b" } else { "edge-a" };
        for client in &clients {
            let name = client.name();
            let said = fabric.godwit(&["migrate", name, "--to", to]);
            assert_eq!(said.code, 0, "{name}, move {n}: {}{}", said.out, said.err);
            client.goes_on();
        }
    }
    let left = if moves() % 2 == 1 { "edge-a" } else { "edge-b" };
    clients.into_iter().for_each(Client::hang_up);
    holds_nothing(&fabric, left);
}
