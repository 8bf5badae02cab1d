//! Two connections with one sealed token at the same moment: one of them is accepted.

use std::sync::Barrier;
use std::thread;

use plugin_runner::ReportedState;
use plugin_runner::protocol::Manifest;

use super::Managed;
use crate::support::http::{Answer, Request};
use crate::support::plugin::{manifest, printed_url, target};
use crate::support::{LONG, assert_matches};

const ROUNDS: usize = 300;

#[test]
fn of_two_with_one_token_exactly_one_is_let_in() {
    let managed = Managed::new("one-token");
    let printer = Manifest {
        command: "/bin/sh".to_owned(),
        args: ["-c", r#"echo "url $STORYDEN_RPC_URL"; exec sleep 1000"#]
            .map(str::to_owned)
            .to_vec(),
        ..manifest("printer")
    };
    let id = managed.installed(managed.package_with(&printer, &[]));
    managed.request_activation(id).unwrap();
    let session = managed.session(id);
    let supervised = session.supervised().unwrap();
    let address = managed.host.address();
    for round in 0..ROUNDS {
        session.wait_for(ReportedState::Connecting, LONG).unwrap();
        let request = Request::upgrade(&target(&printed_url(&managed.host, &session, round)));
        let together = Barrier::new(2);
        let come = || {
            together.wait();
            request.send(address)
        };
        let answers: [Answer; 2] = thread::scope(|scope| {
            let other = scope.spawn(come);
            [come(), other.join().unwrap()]
        });
        let mut statuses = [answers[0].status, answers[1].status];
        statuses.sort_unstable();
        // Late by a little, its token is spent; at the very moment, its place is taken.
        assert_matches!(statuses, [101, 401 | 503], "round {round}");
        session.wait_for(ReportedState::Active, LONG).unwrap();
        let counters = session.counters();
        assert_eq!(counters.connections, round as u64 + 1);
        // Whoever comes later finds it spent.
        assert_eq!(request.send(address).status, 401);
        // A peer that takes no notice of the stop would hold it up.
        drop(answers);
        supervised.stop(LONG).unwrap();
        supervised.start().unwrap();
    }
}
