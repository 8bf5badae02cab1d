//! Plugins on sprites: nothing secret is in a request's path or query, in a file on the sprite but the plugin's
//! own, in a log or in an error, also where the service fails and says back what it was sent.

use std::fs;
use std::path::Path;

use plugin_runner::protocol::method::Ping;
use plugin_runner::runtime::SpritesSettings;

use super::supervised::secretive;
use super::*;
use crate::sprites::{Answer, Fake, Fault, SocketFault};
use crate::support::plugin::TRANSPORTS;
use crate::support::wait_for;

/// What the plugin in a shell writes into its data, where the test finds its token.
const TELLING: &str = "env >\"$PLUGIN_DATA_DIR/environment\"; exit 7";

const DATA: &str = "/home/sprite/plugin-runner/data";

pub(super) fn run(evidence: &Arc<Evidence>) {
    let fake = Fake::start();
    let (_, rest) = fake.token().split_once('/').unwrap();
    evidence.hide("the account's key", rest);
    for transport in TRANSPORTS {
        lives(evidence, &fake, transport);
    }
    fails(evidence, &fake);
    for call in &fake.calls().0 {
        let query = call.query.iter();
        let query: Vec<_> = query
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let target = format!("{}?{}", call.request, query.join("&"));
        evidence.add("target of", "a request", target);
    }
    assert_eq!(fake.sprites(), [""; 0]);
    fake.finish();
}

fn watched(evidence: &Arc<Evidence>, fake: &Fake) -> Watched {
    let (token, url) = (fake.token().to_owned(), fake.url());
    let of_settings = evidence.clone();
    Watched::with(evidence, settings(), |setup| {
        setup.run_elsewhere(move |builder, address| {
            let settings = SpritesSettings::new(token).api_url(url);
            of_settings.debug(&settings);
            let builder = builder.sprites(settings).rpc_base_url(address);
            of_settings.debug(&builder);
            builder
        });
    })
}

impl Watched {
    /// Collects the files on a plugin's sprite that are not the plugin's own, and its log.
    fn look_at_sprite(&self, fake: &Fake, id: InstallationId) {
        let names = fake.sprites();
        let name = names.iter().find(|name| name.ends_with(&id.to_string()));
        let base = fake.path(name.unwrap(), "/home/sprite").unwrap();
        let own = fake.path(name.unwrap(), DATA).unwrap();
        let mut files = Vec::new();
        collect(&base, &own, &mut files);
        assert!(!files.is_empty(), "nothing was uploaded");
        for file in files {
            let content = fs::read(file).unwrap();
            let content = String::from_utf8_lossy(&content);
            self.evidence
                .add("what is in", "a file on a sprite", content);
        }
        let mut logs = Vec::new();
        collect(&self.folder(id).join("logs"), Path::new(""), &mut logs);
        assert!(!logs.is_empty(), "nothing was logged");
        for log in logs {
            let log = fs::read(log).unwrap();
            let log = String::from_utf8_lossy(&log);
            // What the plugin says itself.
            let lines = log.lines().filter(|line| !line.starts_with("configure "));
            let log = lines.collect::<Vec<_>>().join("\n");
            self.evidence.add("what is in", "a plugin's log", log);
        }
    }
}

fn collect(dir: &Path, own: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path != own {
            collect(&path, own, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

/// Plugins to which all goes well, but for a connection that is lost.
fn lives(evidence: &Arc<Evidence>, fake: &Fake, transport: Transport) {
    let watched = watched(evidence, fake);
    let package = |version| watched.package_of("lives", version, transport, &[]);
    let id = watched
        .install(PackageSource::bytes(package("1")))
        .unwrap()
        .id();
    watched.set_overrides(id, secretive()).unwrap();
    evidence.both(&watched.activate(id, LONG).unwrap());
    let names = fake.sprites();
    let sprite = names.iter().find(|name| name.ends_with(&id.to_string()));
    let before = fake.calls().count("GET */exec");
    fake.cut(sprite.unwrap());
    wait_for("the host to ask what became of it", || {
        (fake.calls().count("GET */exec") > before).then_some(())
    });
    let answers = || watched.session(id).call(&Ping {}, LONG).ok();
    wait_for("the plugin to answer again", answers);
    watched.look();
    // Not earlier: the plugin prints it, and the last lines of a run that has ended are shown.
    let configuration = object(json!({ "password": CONFIGURED }));
    watched.configure(id, configuration).unwrap();
    evidence.result(watched.update(id, package("2")));
    evidence.both(&watched.boot(LONG).unwrap());
    watched.look_at_sprite(fake, id);
    let error = json!({ "type": "error", "message": echo(fake) });
    let failed = Fault::Answer(Answer::json(200, &error));
    fake.set(|switches| switches.next(1, "POST */kill", failed));
    evidence.both(&watched.deactivate(id, LONG).unwrap());
    watched.look();
    evidence.both(&watched.remove(id).unwrap());
}

/// What the service was sent.
fn echo(fake: &Fake) -> String {
    format!("refused: Bearer {}", fake.token())
}

/// Plugins that fail, and a service that does, in the worst way: it says back what it was sent.
fn fails(evidence: &Arc<Evidence>, fake: &Fake) {
    let watched = watched(evidence, fake);
    let id = watched.shell("failing", TELLING);
    evidence.failed(watched.activate(id, LONG));
    watched.look_at_sprite(fake, id);
    let environment = {
        let names = fake.sprites();
        let name = names.iter().find(|name| name.ends_with(&id.to_string()));
        let path = fake.path(name.unwrap(), DATA).unwrap().join("environment");
        fs::read_to_string(path).unwrap()
    };
    assert!(environment.contains(VARIABLE), "{environment}");
    let token = environment.split_once("token=").unwrap().1;
    evidence.hide_token(
        "the token of a run on a sprite",
        token.lines().next().unwrap(),
    );

    let echo = echo(fake);
    for (pattern, status) in [
        ("GET */exec", 403),
        ("GET */exec", 400),
        ("GET */fs/read", 401),
    ] {
        let answer = Answer::json(status, &json!({ "error": "denied", "message": echo }));
        fake.set(|switches| switches.next(1, pattern, Fault::Answer(answer)));
        evidence.failed(watched.activate(id, LONG));
        watched.look();
    }
    let said = format!("{{\"type\":\"error\",\"message\":\"{echo}\"}}");
    fake.set(|switches| {
        let error = crate::sprites::frame(0x81, said.as_bytes());
        switches.sockets.push_back(SocketFault::Inject(error));
    });
    evidence.failed(watched.activate(id, LONG));
    watched.look();
    watched.look_at_sprite(fake, id);
    evidence.both(&watched.remove(id).unwrap());
}
