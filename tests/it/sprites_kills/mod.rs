//! Hosts that are killed while their plugins run on sprites, at each request that they make and at random moments.
//! The next host on the same store has every plugin active again that is wanted so, with all it had: there were
//! never two processes of it, nothing is uploaded again that was there, and no restart is counted. Sprites of
//! removed plugins are deleted in the end, and no others.
//!
//! More than the ordinary run does: `PLUGIN_RUNNER_LONG=1` is 200 random kills, `PLUGIN_RUNNER_SPRITES_TRIALS=N`
//! so many, and `PLUGIN_RUNNER_SPRITES_SEED` chooses the same operations and moments again.

mod driver;
mod operation;
mod scene;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::operation::{Moment, Operation};
use self::scene::Scene;
use crate::random::Random;
use crate::sprites::{Answer, Fake, Fault};
use crate::support::number;

/// More requests than any operation makes.
const MOST: usize = 60;

/// Kills a host at each request of an operation in turn, and once it is done. Returns at how many moments.
fn at_each_request(
    scene: &mut Scene,
    mut operation: impl FnMut(&mut Scene, usize) -> Operation,
    mut afterwards: impl FnMut(&mut Scene),
) -> usize {
    let mut count = 0;
    for at in 0..MOST {
        let mut has_come = false;
        for (number, moment) in [Moment::Asked(at), Moment::Answered(at)]
            .into_iter()
            .enumerate()
        {
            let operation = operation(scene, at + number);
            println!("{operation:?}, {moment:?}");
            has_come = scene.kill(&operation, moment);
            afterwards(scene);
            count += 1;
        }
        if !has_come {
            return count;
        }
    }
    panic!("the operation has no end");
}

/// Whether everything is to be tried, however long that takes.
fn is_long() -> bool {
    number("PLUGIN_RUNNER_LONG").is_some_and(|number| number > 0)
}

fn remove(id: String) -> Operation {
    Operation::Remove {
        id,
        keeps_data: false,
    }
}

/// The only plugin.
fn only(scene: &Scene) -> String {
    let mut plugins = scene.plugins();
    assert_eq!(plugins.len(), 1);
    plugins.remove(0).0
}

#[test]
fn a_first_start_goes_on_where_a_host_was_killed() {
    let mut scene = Scene::new("sprites-kills-first");
    let install = |scene: &mut Scene, at| scene.install(at % 2 == 1);
    let count = at_each_request(&mut scene, install, |scene| {
        for (id, is_wanted) in scene.plugins() {
            if !is_wanted {
                // The host was killed before it was told to start it.
                scene.act(&Operation::Activate { id: id.clone() });
            }
            scene.act(&remove(id));
        }
    });
    println!("{count} hosts killed at a first start");
    scene.finish();
}

#[test]
fn a_plugin_that_was_left_running_is_ended_before_it_is_started() {
    let mut scene = Scene::new("sprites-kills-boot");
    for is_stdio in [false, true] {
        let install = scene.install(is_stdio);
        scene.act(&install);
        let count = at_each_request(&mut scene, |_, _| Operation::Boot, |_| {});
        for moment in [Moment::Opened, Moment::Begun, Moment::Done] {
            scene.kill(&Operation::Boot, moment);
        }
        // Its process stands still, or is gone.
        scene.kill_and_sleep(Fake::go_warm);
        scene.kill_and_sleep(Fake::go_cold);
        println!("{} hosts killed at a boot", count + 5);
        let id = only(&scene);
        scene.act(&remove(id));
    }
    scene.finish();
}

#[test]
fn an_update_goes_on_or_is_undone_where_a_host_was_killed() {
    let mut scene = Scene::new("sprites-kills-update");
    let install = scene.install(false);
    scene.act(&install);
    let id = only(&scene);
    // From one transport to the other.
    let update = |scene: &mut Scene, at| scene.update(&id, at % 2 == 0);
    let count = at_each_request(&mut scene, update, |_| {});
    println!("{count} hosts killed at an update");
    scene.finish();
}

#[test]
fn a_stop_that_a_kill_of_the_host_cut_short_is_done_by_the_next() {
    let mut scene = Scene::new("sprites-kills-stop");
    for is_stdio in [false, true] {
        let install = scene.install(is_stdio);
        scene.act(&install);
        let id = only(&scene);
        let stop = |_: &mut Scene, _| Operation::Deactivate { id: id.clone() };
        let count = at_each_request(&mut scene, stop, |scene| {
            if scene.plugins() == [(id.clone(), false)] {
                scene.act(&Operation::Activate { id: id.clone() });
            }
        });
        println!("{count} hosts killed at a stop");
        scene.act(&remove(id));
    }
    scene.finish();
}

#[test]
fn a_shutdown_that_a_kill_of_the_host_cut_short_loses_nothing() {
    let mut scene = Scene::new("sprites-kills-shutdown");
    for is_stdio in [false, true] {
        let install = scene.install(is_stdio);
        scene.act(&install);
    }
    let count = at_each_request(&mut scene, |_, _| Operation::ShutDown, |_| {});
    println!("{count} hosts killed at a shutdown");
    scene.finish();
}

#[test]
fn the_sprite_of_a_removed_plugin_is_deleted_whenever_a_host_is_killed() {
    let mut scene = Scene::new("sprites-kills-remove");
    for keeps_data in [false, true] {
        let remove = |scene: &mut Scene, at: usize| {
            if scene.plugins().is_empty() {
                let install = scene.install(at % 2 == 1);
                scene.act(&install);
            }
            let id = only(scene);
            Operation::Remove { id, keeps_data }
        };
        let count = at_each_request(&mut scene, remove, |_| {});
        println!("{count} hosts killed at a removal");
    }
    scene.finish();
}

#[test]
fn what_a_host_that_is_gone_has_asked_for_does_no_harm_later() {
    let mut scene = Scene::new("sprites-kills-late");
    for at in 0..MOST {
        let install = scene.install(at % 2 == 1);
        println!("{install:?}, {at}");
        let has_come = scene.kill(&install, Moment::Late(at));
        if !has_come {
            scene.finish();
            return;
        }
        for (id, is_wanted) in scene.plugins() {
            if is_wanted {
                scene.wait_for_late();
                // Its files are brought there once more.
                let update = scene.update(&id, at % 2 == 0);
                scene.act(&update);
            }
            scene.act(&remove(id));
        }
    }
    panic!("the operation has no end");
}

/// Chooses what a host does next, of a few plugins.
fn choose(scene: &mut Scene, random: &mut Random) -> Operation {
    let plugins = scene.plugins();
    if plugins.is_empty() || plugins.len() < 3 && random.one_in(4) {
        return scene.install(random.one_in(2));
    }
    let (id, is_wanted) = random.choose(&plugins).clone();
    match random.below(9) {
        0 => Operation::Remove {
            id,
            keeps_data: random.one_in(3),
        },
        1..=3 => scene.update(&id, random.one_in(2)),
        4 | 5 => Operation::Boot,
        6 => Operation::ShutDown,
        _ if is_wanted => Operation::Deactivate { id },
        _ => Operation::Activate { id },
    }
}

fn moment(random: &mut Random) -> Moment {
    match random.below(8) {
        0 | 1 => Moment::Asked(random.below(8)),
        2 | 3 => Moment::Answered(random.below(8)),
        4 => Moment::Begun,
        // No operation takes longer on a machine that is not busy.
        _ => Moment::After(Duration::from_micros(random.next() % 120_000)),
    }
}

/// What the service does wrong, when the next host boots; the plugin is not to blame.
fn fault(random: &mut Random) -> Fault {
    match random.below(5) {
        0 => Fault::Drop,
        1 | 2 => Fault::DoneDrop,
        3 => Fault::Answer(Answer::html(503)),
        _ => Fault::Answer(Answer::rate_limited("rate_limited", Some(1), None)),
    }
}

#[test]
fn nothing_is_lost_or_doubled_whenever_a_host_is_killed() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("PLUGIN_RUNNER_SPRITES_SEED").unwrap_or(now.as_secs());
    let usual = if is_long() { 200 } else { 8 };
    let trials = number("PLUGIN_RUNNER_SPRITES_TRIALS").unwrap_or(usual);
    println!("seed {seed}, {trials} trials");
    let began = Instant::now();
    let mut scene = Scene::new("sprites-kills-random");
    let (mut killed, mut done) = (BTreeMap::<String, u32>::new(), 0);
    for trial in 0..trials {
        let mut random = Random::new(seed, trial);
        let (operation, moment) = (choose(&mut scene, &mut random), moment(&mut random));
        if random.one_in(3) {
            scene.next_fault = Some((random.below(12), fault(&mut random)));
        }
        let then = format!("{:?}", scene.next_fault);
        println!("seed {seed}, trial {trial}: {operation:?}, {moment:?}, then {then:.40}");
        if scene.kill(&operation, moment) {
            *killed.entry(operation.name()).or_default() += 1;
        } else {
            done += 1;
        }
    }
    println!(
        "{trials} hosts killed in {:?}: while they did {killed:?}, and {done} when they were done; {}",
        began.elapsed(),
        scene.summary()
    );
    scene.finish();
}
