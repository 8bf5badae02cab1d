//! Plugins in places of the embedder's own: runtimes by hand, whose runs are no processes of this machine.

#[cfg(all(feature = "sprites", target_os = "linux"))]
mod cancelled_starts;
mod clearing;
mod connections;
mod ends;
mod failures;
mod few_descriptors;
#[cfg(all(feature = "sprites", target_os = "linux"))]
mod on_sprites;
#[cfg(all(feature = "sprites", feature = "sqlite", target_os = "linux"))]
mod open_packages;
mod own;
mod panics;
#[cfg(all(feature = "sprites", target_os = "linux"))]
mod sprites_updates;
