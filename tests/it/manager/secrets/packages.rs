//! Packages by URL, that come and that do not; and other settings that are URLs.

use std::io::Write as _;
use std::net::TcpListener;

use plugin_runner::Host;
use plugin_runner::auth::ExternalToken;

use super::super::fetch::{fetching_from, ok, serve};
use super::*;

pub(super) fn run(evidence: &Arc<Evidence>) {
    let package = Managed::new("secrets-package").package("1", &[]);
    let mut short = ok(&package);
    short.truncate(short.len() - 1);
    let elsewhere = |to: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    let answers = [
        ok(&package),
        format!("HTTP/1.1 404 {URL}\r\nSet-Cookie: {HEADER}\r\nContent-Length: 8\r\n\r\n{URL}")
            .into_bytes(),
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec(),
        short,
        ok(URL.as_bytes()),
        Vec::new(),
        URL.as_bytes().to_vec(),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {URL}\r\n\r\n").into_bytes(),
        format!("HTTP/1.1 200 OK\r\nbad {URL}\r\n\r\n").into_bytes(),
        elsewhere(&format!("http://169.254.169.254/{URL}")),
        elsewhere(&format!("ftp://h/{URL}")),
        elsewhere(&format!("http://{URL}:{URL}@h/")),
        elsewhere(&format!("http://h h/{URL}")),
        elsewhere(&format!("//:{URL}")),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let (address, served) = serve(answer);
        let watched = Watched::new(evidence, fetching_from(address));
        let source = PackageSource::url(format!("http://{address}/{URL}?key={URL}"));
        evidence.debug(&source);
        let result = watched.install(source);
        served.join().unwrap();
        match result {
            Ok(installed) => evidence.both(&installed),
            Err(error) => {
                assert_ne!(number, 0, "{error}");
                evidence.error(&error);
            }
        }
    }
    without_an_answer(evidence, &package);
    other_settings(evidence);
}

fn without_an_answer(evidence: &Arc<Evidence>, package: &[u8]) {
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let watched = Watched::new(evidence, fetching_from(gone));
    for url in [
        format!("http://{gone}/{URL}?key={URL}"),
        format!("http://me:{URL}@{gone}/"),
        format!("http://{URL}:{URL}@{gone}/"),
        format!("https://127.0.0.1/{URL}"),
        format!("http://[::1]/{URL}"),
        format!("http://plugins.invalid/{URL}"),
        format!("ftp://h/{URL}"),
        format!("http://h h/{URL}"),
        format!("http:///{URL}"),
        format!("http://h:99999/{URL}"),
        format!("http://h/{URL}\n"),
        format!("http://me:{URL}/"),
        format!("http://me:{URL}%40h/"),
        format!("me:{URL}@h/"),
        format!("http:me:{URL}@h/"),
        format!("http//me:{URL}@h/"),
        format!("http:\\\\h\\{URL}"),
        format!("?{URL}"),
        format!("#{URL}"),
        format!("/{URL}"),
        URL.to_owned(),
    ] {
        evidence.failed(watched.install(PackageSource::url(&url)));
        evidence.failed(watched.install_or_update(PackageSource::url(url)));
    }
    // A package that is another.
    let (address, served) = serve(ok(package));
    let watched = Watched::new(evidence, fetching_from(address));
    let source = PackageSource::url(format!("http://{address}/{URL}")).sha256("00".repeat(32));
    evidence.failed(watched.install(source));
    served.join().unwrap();
    // TLS with a server that has none.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let watched = Watched::new(evidence, fetching_from(address));
    let answer = ok(package);
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // It may have seen enough.
        let _ = stream.write_all(&answer);
    });
    let source = PackageSource::url(format!("https://{address}/{URL}"));
    evidence.failed(watched.install(source));
    serving.join().unwrap();
}

fn other_settings(evidence: &Arc<Evidence>) {
    for url in [
        format!("http://me:{URL}@h/{URL}?key={URL}"),
        format!("http://h h/{URL}"),
        format!("http://{URL}@"),
        format!("/{URL}"),
        format!("http://me@me:{URL}@h"),
    ] {
        let directory = TestDir::new("secrets-url");
        let builder = Host::builder()
            .data_dir(directory.path())
            .rpc_base_url(&url);
        evidence.debug(&builder);
        match builder.build() {
            Ok(host) => evidence.debug(&host),
            Err(error) => evidence.error(&error),
        }
        evidence.result(AccessGrant::new(ACCESS_KEY, &*url));
        evidence.result(ExternalToken::parse(&url));
        let token = ExternalToken::generate().unwrap();
        evidence.hide_token("an external token", token.expose());
        if let Err(error) = token.connection_url(&url) {
            evidence.error(&error);
        }
    }
    let hosts = settings().fetch_allowed_hosts([format!("http://h/{URL}")]);
    let host = TestHost::new("secrets-hosts");
    if let Err(error) = Manager::with_settings((*host).clone(), hosts) {
        evidence.error(&error);
    }
}
