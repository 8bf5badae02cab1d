//! Starts on sprites that are cancelled when the service has begun the program and the host does not know it yet.

use std::time::Duration;

use plugin_runner::ReportedState::Inactive;
use plugin_runner::protocol::Transport;

use crate::runtimes::place::{Place, packed_as};
use crate::sprites::Fault;
use crate::support::host::supervised;
use crate::support::{LONG, wait_until};

#[test]
fn nothing_is_left_of_a_start_that_is_stopped_while_the_service_answers() {
    let place = Place::sprites("stopped-while-answered");
    let host = place.host();
    for transport in [Transport::WebSocket, Transport::Stdio] {
        let id = format!("slow-{transport}");
        let session = host.run(packed_as(&host, &id, transport, &[]));
        let plugin = supervised(&session);
        plugin.stop(LONG).unwrap();
        let sprite = place.sprite(session.id()).unwrap();
        // The second request of this kind: the first lists what runs.
        place.fake().set(|switches| {
            switches.next(1, "GET */exec", Fault::Delay(Duration::ZERO));
            switches.next(1, "GET */exec", Fault::DoneDelay(LONG));
        });
        plugin.start().unwrap();
        wait_until("the program", || !place.fake().sessions(&sprite).is_empty());
        plugin.stop(LONG).unwrap();
        assert_eq!(session.reported_state(), Inactive);
        let left = place.fake().sessions(&sprite);
        assert!(left.is_empty(), "{transport}: {left:?}");
    }
    drop(host);
    place.finish();
}
