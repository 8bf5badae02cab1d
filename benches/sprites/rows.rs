//! What is measured.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::fake::{Call, Fake};
use crate::hand::Hand;
use crate::support::plugins::{Folder, builder, fixture, manifest};
use crate::support::{Bench, By, Case, LONG, Sample, Target, Unit};
use plugin_runner::listener::Listener;
use plugin_runner::runtime::SpritesSettings;
use plugin_runner::store::{Record, Source};
use plugin_runner::{ActiveState, Health, Host, InstallationId, ReportedState};
use serde_json::json;

const TRANSPORTS: [&str; 2] = ["stdio", "websocket"];
/// The time between two pings of a socket.
const PING: Duration = Duration::from_secs(15);

pub(crate) fn measure() {
    let bench = Bench::new("sprites", "plugins on sprites, with a fake of the service");
    for transport in TRANSPORTS {
        warm_start(&bench, transport);
    }
    idle(&bench);
}

/// From the load until active, where nothing is to be uploaded.
fn warm_start(bench: &Bench, transport: &'static str) {
    let starts = bench.pick(1, 10, 30);
    let fake = Fake::start();
    let requests = Running::start(&fake, transport).requests();
    let by_hand = Case::new("the same requests by hand", || {
        let mut hand = Hand::new(&fake, transport, requests);
        move || {
            times(starts, || {
                let took = hand.start();
                hand.end();
                took
            })
        }
    });
    let through_the_host = Case::new("through the host", || {
        let running = Running::start(&fake, transport);
        running.load();
        running.unload();
        move || {
            times(starts, || {
                let took = running.load();
                running.unload();
                took
            })
        }
    });
    let with = "the same requests by hand";
    let through_the_host = through_the_host.against(with, By::P50, Target::AtMost(1.5));
    let title = format!("load to active over {transport}, warm");
    bench.group(&title, vec![by_hand, through_the_host]);
    fake.finish();
}

/// How often threads of the host wake for each idle session.
fn idle(bench: &Bench) {
    // Two pings of each fall into it, wherever it begins.
    let window = bench.pick(Duration::from_millis(300), PING * 2, PING * 2);
    let pings = bench.pick(0.0, 2.0, 2.0);
    let cases = TRANSPORTS.map(|transport| {
        let measure = move || {
            let fake = Fake::start();
            let running: Vec<_> = (0..4).map(|_| Running::start(&fake, transport)).collect();
            for one in &running {
                one.load();
            }
            settle();
            let before = wake_ups();
            std::thread::sleep(window);
            let woken = wake_ups() - before;
            drop(running);
            fake.finish();
            Sample::single(woken / 4.0)
        };
        // To send it, and for the answer.
        let most = Target::AtMost(pings * 2.0 + 1.0);
        let name = format!("over {transport}, in {window:?}");
        Case::new(name, move || measure)
            .unit(Unit::Count)
            .absolute(most)
    });
    bench.group_of("wake-ups of an idle session", 1, cases.into());
}

/// A host with one plugin on a sprite.
struct Running<'a> {
    host: Host,
    id: InstallationId,
    fake: &'a Fake,
    _listener: Listener,
    _folder: Folder,
}

impl<'a> Running<'a> {
    fn start(fake: &'a Fake, transport: &str) -> Self {
        let id = InstallationId::generate();
        let folder = Folder::new(&format!("sprites-{id}"));
        // The one of the host is not known before it is built.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let address = address.unwrap().to_string();
        let settings = SpritesSettings::new(fake.token()).api_url(fake.url());
        let host = builder(&folder)
            .sprites(settings)
            .rpc_base_url(format!("ws://{address}"))
            // A look at the plugin is another thing than one at the socket.
            .health(Health::default().interval(Duration::ZERO))
            .build()
            .unwrap();
        let listener = host.listen(address.as_str()).unwrap();
        let manifest = manifest(&json!({
            "id": "bench", "author": "bench", "name": "bench", "transport": transport,
            "command": fixture(), "args": ["behave"],
        }));
        let directory = folder.path().join("plugin");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("file"), "content").unwrap();
        let mut record = Record::supervised(manifest, Source::Directory(directory));
        record.id = id;
        record.set_active_state(ActiveState::Active);
        host.store().put(record).unwrap();
        Self {
            host,
            id,
            fake,
            _listener: listener,
            _folder: folder,
        }
    }

    fn load(&self) -> Duration {
        let began = Instant::now();
        let session = self.host.load(self.id).unwrap();
        session.wait_for(ReportedState::Active, LONG).unwrap();
        began.elapsed()
    }

    fn unload(&self) {
        self.host.unload(self.id).unwrap();
    }

    /// What a warm start asks, in its order: paths with their queries. The last one starts the program.
    fn requests(&self) -> Vec<String> {
        self.load();
        self.unload();
        self.fake.forget_calls();
        self.load();
        let calls = self.fake.calls();
        let starts = |call: &&Call| !call.query.is_empty() && call.request.ends_with("/exec");
        let started = calls.0.iter().position(|call| starts(&call)).unwrap();
        let requests = calls.0[..=started].iter().map(|call| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(&call.query);
            let path = call.request.strip_prefix("GET ").unwrap();
            format!("{path}?{}", query.finish())
        });
        let requests = requests.collect();
        self.unload();
        requests
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let report = self.host.shutdown(LONG);
        assert!(report.is_complete(), "{report:?}");
    }
}

/// How often the host's threads have waited and been woken. The service's have a name of their own, and those of
/// the bench none.
fn wake_ups() -> f64 {
    let main = std::fs::read_to_string("/proc/self/comm").unwrap();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let count = |task: std::io::Result<std::fs::DirEntry>| {
        let path = task.unwrap().path();
        let read = |file| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        let (name, status) = (read("comm"), read("status"));
        if name == main || name == "fake-sprites\n" {
            return 0.0;
        }
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0.0, |count| count.trim().parse().unwrap())
    };
    tasks.map(count).sum()
}

/// Waits until they do nothing more.
fn settle() {
    let mut before = wake_ups();
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(100));
        let now = wake_ups();
        if now - before < 1.0 {
            return;
        }
        before = now;
    }
}

fn times(count: usize, measure: impl FnMut() -> Duration) -> Sample {
    let times: Vec<Duration> = std::iter::repeat_with(measure).take(count).collect();
    Sample::of_times(Unit::Microseconds, &times)
}
