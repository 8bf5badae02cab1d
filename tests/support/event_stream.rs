//! Streams of server-sent events, as a browser reads them.

use std::io::{BufRead as _, BufReader, Read};

/// A stream of events.
pub(crate) struct Events(BufReader<Box<dyn Read + Send>>);

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) data: String,
}

impl Events {
    /// The stream that is the body of an answer.
    #[track_caller]
    pub(crate) fn of(response: ureq::http::Response<ureq::Body>) -> Self {
        assert_eq!(response.status(), 200);
        let content_type = response.headers().get("Content-Type").unwrap();
        assert_eq!(content_type, "text/event-stream; charset=utf-8");
        Self::read_from(response.into_body().into_reader())
    }

    /// The stream that comes from here.
    pub(crate) fn read_from(reader: impl Read + Send + 'static) -> Self {
        Self(BufReader::new(Box::new(reader)))
    }

    /// Reads the next event; none when the stream has ended properly.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(": ").unwrap_or((&line, "")) {
                ("id", id) => event.id = Some(id.to_owned()),
                ("event", name) => event.name = Some(name.to_owned()),
                ("data", data) => lines.push(data.to_owned()),
                ("", _) if !line.is_empty() => {}
                // What has no data is no event for a browser.
                ("", _) if lines.is_empty() => event = Event::default(),
                ("", _) => {
                    event.data = lines.join("\n");
                    return Some(event);
                }
                other => panic!("an unknown field: {other:?}"),
            }
        }
    }

    /// Reads a line as it came; none at the end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line);
        let count = count.unwrap_or_else(|error| panic!("no further line: {error}"));
        (count > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    /// The next event, which must be a line of a log.
    #[track_caller]
    pub(crate) fn log_line(&mut self) -> Event {
        let event = self.next().expect("a line, but the stream has ended");
        assert_eq!(event.name, None, "{event:?}");
        event
    }

    /// The data of the next event, which must be a line of a log.
    #[track_caller]
    pub(crate) fn data(&mut self) -> String {
        self.log_line().data
    }
}
