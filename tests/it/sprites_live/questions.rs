//! The open questions about the service, each with what finds out.

use std::time::{Duration, Instant};

use plugin_runner::Xid;
use serde_json::{Value, json};

use super::client::{Client, Exec, Outcome, Seen};

/// Longer than the service lets a program run on without a client, by its documents.
const DETACHED: Duration = Duration::from_secs(20);
/// How long something is waited for, and how long it is watched that nothing comes.
const ANSWER: Duration = Duration::from_secs(30);
const NOTHING: Duration = Duration::from_secs(2);
/// How long the socket is held after the end of a program, by reports, and longer.
const END: Duration = Duration::from_secs(7);

/// A line of what was learned.
pub(super) struct Learned {
    pub(super) text: String,
    pub(super) is_learned: bool,
}

impl Learned {
    pub(super) fn of(question: &str, outcome: Outcome<String>) -> Self {
        let is_learned = outcome.is_ok();
        let text = outcome.unwrap_or_else(|why| format!("not learned: {why}"));
        let text = text.escape_debug().to_string().replace("\\\"", "\"");
        Self {
            text: format!("{question}: {text}"),
            is_learned,
        }
    }
}

/// A sprite that goes when this is dropped.
pub(super) struct Live {
    client: Client,
    name: String,
}

impl Live {
    pub(super) fn new(client: Client) -> Self {
        let name = format!("plugin-runner-live-test-{}", Xid::generate());
        Self { client, name }
    }

    pub(super) fn ask_all(self) -> Vec<Learned> {
        let made = self.make();
        let ask = |question: &str, ask: &dyn Fn() -> Outcome<String>| {
            let outcome = made.clone().and_then(|()| ask());
            Learned::of(question, outcome)
        };
        let nothing = || Err("nothing here finds that out".to_owned());
        vec![
            ask("1. a program without a client", &|| self.detached()),
            ask("2. what attaching replays", &|| self.replayed()),
            ask("3. session_info", &|| self.announced()),
            ask("4. how an end is told", &|| self.ended()),
            ask("5. a kill with timeout=0s", &|| self.killed_at_once()),
            ask("6. forms of timeout", &|| {
                self.kills(&["INT&timeout=1", "INT&timeout=1s"])
            }),
            ask("7. names of signals", &|| {
                self.kills(&["INT&timeout=2s", "SIGINT&timeout=2s"])
            }),
            ask("8. what is missing", &|| self.missing()),
            ask("9. files", &|| self.files()),
            ask("10. forms of requests", &|| self.forms()),
            ask("11. the environment", &|| self.environment()),
            ask("12. names and limits of accounts", &nothing),
            ask("13. pings and large frames", &|| self.pings()),
            ask("14. a program that is not there", &|| Ok(self.not_there())),
            ask("15. upgrades and maintenance", &nothing),
        ]
    }

    fn make(&self) -> Outcome<()> {
        let body = json!({ "name": self.name }).to_string();
        let made = self.client.ask("POST", "sprites", body.as_bytes())?;
        if made.status != 201 {
            return Err(format!("no sprite: status {}: {}", made.status, made.body));
        }
        Ok(())
    }

    fn at(&self, rest: &str) -> String {
        format!("sprites/{}/{rest}", self.name)
    }

    /// Starts a script.
    fn script(&self, text: &str, settings: &str) -> Outcome<Exec> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for word in ["bash", "-c", text] {
            query.append_pair("cmd", word);
        }
        self.client
            .exec(&self.at(&format!("exec?{}{settings}", query.finish())))
    }

    /// Starts a script that goes on, and waits until it does; returns its session too.
    fn lasting(&self, text: &str, settings: &str) -> Outcome<(Exec, String)> {
        let before = self.sessions()?;
        let mut exec = self.script(&format!("{text}; echo up; sleep 300"), settings)?;
        let seen = exec.until(ANSWER, |seen| output(seen, 1).contains("up"));
        if !output(&seen, 1).contains("up") {
            return Err(format!("no output but {seen:?}"));
        }
        let mut new = self.sessions()?;
        new.retain(|id| !before.contains(id));
        let id = new.pop().ok_or("it is not listed")?;
        Ok((exec, id))
    }

    /// The output of a script that ends.
    fn output(&self, text: &str, settings: &str) -> Outcome<String> {
        let mut exec = self.script(text, settings)?;
        let seen = exec.until(ANSWER, has_ended);
        if !has_ended(&seen) {
            return Err(format!("it does not end: {seen:?}"));
        }
        Ok(output(&seen, 1))
    }

    fn sessions(&self) -> Outcome<Vec<String>> {
        let answer = self.client.get(&self.at("exec"))?;
        let json: Value = serde_json::from_str(&answer.body)
            .map_err(|_| format!("status {}: {}", answer.status, answer.body))?;
        let list = json.as_array().or_else(|| json["sessions"].as_array());
        let list = list.ok_or_else(|| format!("no list: {}", answer.body))?;
        let id = |session: &Value| match &session["id"] {
            Value::String(id) => id.clone(),
            id => id.to_string(),
        };
        Ok(list.iter().map(id).collect())
    }

    fn kill(&self, id: &str, how: &str) -> Outcome<super::client::Answer> {
        let target = self.at(&format!("exec/{id}/kill?signal={how}"));
        self.client.ask("POST", &target, b"")
    }

    fn detached(&self) -> Outcome<String> {
        let (long, kept) = self.lasting("true", "&max_run_after_disconnect=60s")?;
        let (short, default) = self.lasting("true", "")?;
        drop((long, short));
        let began = Instant::now();
        let mut listed = self.sessions()?;
        while listed.contains(&default) && began.elapsed() < DETACHED {
            std::thread::park_timeout(Duration::from_millis(500));
            listed = self.sessions()?;
        }
        let after = began.elapsed();
        let of = |id| {
            if listed.contains(id) {
                "still listed"
            } else {
                "gone"
            }
        };
        let text = format!(
            "without max_run_after_disconnect {} after {after:.0?}; with 60s {}",
            of(&default),
            of(&kept)
        );
        for id in listed {
            self.kill(&id, "KILL&timeout=1s")?;
        }
        Ok(text)
    }

    fn replayed(&self) -> Outcome<String> {
        let (exec, id) = self.lasting("echo before", "&max_run_after_disconnect=60s")?;
        drop(exec);
        let mut again = self
            .client
            .exec(&self.at(&format!("exec/{id}?stdin=false")))?;
        let seen = again.until(NOTHING, |_| false);
        self.kill(&id, "KILL&timeout=1s")?;
        let info = seen.iter().find_map(|seen| match seen {
            Seen::Text(text) if text["type"] == "session_info" => Some(text["tty"].to_string()),
            _ => None,
        });
        let info = info.map_or("no session_info".to_owned(), |tty| {
            format!("session_info with tty {tty}")
        });
        let replay = output(&seen, 1);
        let raw: Vec<_> = seen
            .iter()
            .filter(|seen| matches!(seen, Seen::Bytes(..)))
            .collect();
        Ok(match (raw.is_empty(), replay.is_empty()) {
            (true, _) => format!("{info}, and no output"),
            (_, false) => format!("{info}, and of standard output {replay:?}"),
            (_, true) => format!("{info}, and {raw:?}"),
        })
    }

    fn announced(&self) -> Outcome<String> {
        let mut exec = self.script("echo up", "")?;
        let seen = exec.until(ANSWER, has_ended);
        let is_info =
            |seen: &Seen| matches!(seen, Seen::Text(text) if text["type"] == "session_info");
        match seen.iter().position(is_info) {
            None => Ok("does not come".to_owned()),
            Some(0) => Ok(format!("comes first: {:?}", seen[0])),
            Some(place) => Ok(format!("comes after {:?}", &seen[..place])),
        }
    }

    fn ended(&self) -> Outcome<String> {
        let mut exec = self.script("exit 7", "")?;
        let began = Instant::now();
        let seen = exec.rest(END);
        let frame = seen.iter().find_map(|seen| match seen {
            Seen::Bytes(3, code) => Some(format!("frame 0x03 with {}", code.first().unwrap_or(&0))),
            _ => None,
        });
        let text = seen.iter().find_map(|seen| match seen {
            Seen::Text(text) if text["type"] == "exit" => Some(format!("text {text}")),
            _ => None,
        });
        let closed = match seen.last() {
            Some(Seen::Closed(how)) => format!("closed after {:.0?} ({how})", began.elapsed()),
            _ => format!("open for more than {END:?}"),
        };
        let frame = frame.unwrap_or_else(|| "no frame 0x03".to_owned());
        let text = text.unwrap_or_else(|| "no text".to_owned());
        Ok(format!("{frame}, {text}, {closed}"))
    }

    fn killed_at_once(&self) -> Outcome<String> {
        let (_exec, id) = self.lasting("trap '' INT", "")?;
        let answer = self.kill(&id, "INT&timeout=0s")?;
        let is_ended = !self.sessions()?.contains(&id);
        self.kill(&id, "KILL&timeout=1s")?;
        let ended = if is_ended { "yes" } else { "no" };
        Ok(format!(
            "a program that ignores the signal: ends it at once: {ended}; status {}: {}",
            answer.status,
            answer.body.trim()
        ))
    }

    fn kills(&self, forms: &[&str]) -> Outcome<String> {
        let mut told = Vec::new();
        for form in forms {
            let (_exec, id) = self.lasting("true", "")?;
            let answer = self.kill(&id, form)?;
            let last = answer
                .body
                .trim()
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned();
            let name = form
                .split_once("&timeout")
                .filter(|_| forms[0] != "INT&timeout=1");
            let name = name.map_or_else(|| form.replace("INT&", ""), |(name, _)| name.to_owned());
            told.push((format!("{name}: status {}", answer.status), last));
            self.kill(&id, "KILL&timeout=1s")?;
        }
        let (statuses, lasts): (Vec<_>, Vec<_>) = told.into_iter().unzip();
        Ok(format!(
            "{}; at last {}",
            statuses.join("; "),
            lasts.join(" and ")
        ))
    }

    fn missing(&self) -> Outcome<String> {
        let none = self.client.get(&format!("sprites/{}-not", self.name))?;
        let file = self
            .client
            .get(&self.at("fs/read?path=/home/sprite/none&workingDir=/"))?;
        Ok(format!(
            "no sprite: {} (status {}); no file: {} (status {})",
            none.body, none.status, file.body, file.status
        ))
    }

    fn files(&self) -> Outcome<String> {
        let target =
            "fs/write?path=/home/sprite/plugin-runner/one&workingDir=/&mode=0640&mkdirParents=true";
        let written = self.client.ask("PUT", &self.at(target), b"content")?;
        let missing = self
            .client
            .get(&self.at("fs/read?path=/home/sprite/none&workingDir=/"))?;
        let looked = self.output(
            "cd /home/sprite/plugin-runner && stat -c '%U %a' one . && id -un && \
             { test -w . && echo writable || echo not writable; }",
            "",
        )?;
        let looked = looked.lines().collect::<Vec<_>>().join(", ");
        Ok(format!(
            "written with status {}; a missing path: status {}; owner and mode of the file, of its directory, \
             the user of programs: {looked}",
            written.status, missing.status
        ))
    }

    fn forms(&self) -> Outcome<String> {
        let mut told = Vec::new();
        for form in ["mkdirParents", "mkdir"] {
            let target = format!("fs/write?path=/home/sprite/{form}/one&workingDir=/&{form}=true");
            let status = self.client.ask("PUT", &self.at(&target), b"x")?.status;
            told.push(format!("{form}: status {status}"));
        }
        let target = self.at("fs/delete?path=/home/sprite/mkdir&workingDir=/&recursive=true");
        let deleted = self.client.ask("DELETE", &target, b"")?;
        told.push(format!("delete by query: status {}", deleted.status));
        let list = format!("sprites?prefix={}&max_results=1", self.name);
        let list = self.client.get(&list)?;
        let json: Value = serde_json::from_str(&list.body).unwrap_or_default();
        let members = json
            .as_object()
            .map(|members| members.keys().cloned().collect::<Vec<_>>());
        told.push(format!(
            "members of a list: {}",
            members.unwrap_or_default().join(" ")
        ));
        Ok(told.join("; "))
    }

    fn environment(&self) -> Outcome<String> {
        let names = |settings| -> Outcome<String> {
            let names = self.output("compgen -e", settings)?;
            Ok(names.lines().collect::<Vec<_>>().join(" "))
        };
        Ok(format!(
            "without env: {}; with one: {}",
            names("")?,
            names("&env=ONE=1")?
        ))
    }

    fn pings(&self) -> Outcome<String> {
        let mut exec = self.script("head -c 4194304 /dev/zero; sleep 20", "")?;
        let began = Instant::now();
        // A service that pings at all does so within its idle limit.
        let quiet = if self.client.url.starts_with("https://") {
            DETACHED
        } else {
            NOTHING
        };
        let seen = exec.rest(quiet);
        let pings = seen.iter().filter(|seen| **seen == Seen::Ping).count();
        let largest = seen.iter().filter_map(|seen| match seen {
            Seen::Bytes(1, bytes) => Some(bytes.len()),
            _ => None,
        });
        let pings = if pings == 0 {
            "no".to_owned()
        } else {
            pings.to_string()
        };
        for id in self.sessions()? {
            self.kill(&id, "KILL&timeout=1s")?;
        }
        Ok(format!(
            "{pings} pings in {:.0?}; of 4 MiB at once the largest piece has {} bytes",
            began.elapsed(),
            largest.max().ok_or("no output")?
        ))
    }

    fn not_there(&self) -> String {
        match self.client.exec(&self.at("exec?cmd=/no/such/program")) {
            Err(refused) => format!("error of the upgrade: {refused}"),
            Ok(mut exec) => format!("{:?}", exec.until(END, has_ended)),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let name = &self.name;
        for _ in 0..3 {
            let deleted = self.client.ask("DELETE", &format!("sprites/{name}"), b"");
            match deleted {
                Ok(answer) if matches!(answer.status, 200 | 204 | 404) => return,
                other => println!("cannot delete the sprite {name}: {other:?}"),
            }
        }
        println!("DELETE THE SPRITE {name} BY HAND");
    }
}

/// What came of a stream.
fn output(seen: &[Seen], stream: u8) -> String {
    let bytes = seen.iter().filter_map(|seen| match seen {
        Seen::Bytes(number, bytes) if *number == stream => Some(&bytes[..]),
        _ => None,
    });
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned()
}

fn has_ended(seen: &[Seen]) -> bool {
    seen.iter().any(|seen| match seen {
        Seen::Bytes(stream, _) => *stream == 3,
        Seen::Text(text) => text["type"] == "exit",
        Seen::Closed(_) => true,
        Seen::Ping => false,
    })
}
