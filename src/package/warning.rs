//! `PackageWarning`: what the author of a package may have overlooked.

use crate::text::Foreign;

/// What the author of a package may have overlooked, as a sentence.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackageWarning<'a> {
    /// Those for other tools, which begin with `$`, `_` or `x-`, are left out.
    #[error(
        "manifest.json: there is no field `{}`{}", Foreign::new(.member).limited_to(100),
        .meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
    )]
    UnknownMember {
        member: &'a str,
        meant: Option<&'static str>,
    },
    #[error(
        "manifest.json: Storyden has no event {:?}; it comes only from a host that defines it",
        Foreign::new(.event).limited_to(100)
    )]
    UnknownEvent { event: &'a str },
    /// Of those that are shown to people.
    #[error("manifest.json: field `{field}` is missing or empty")]
    EmptyField { field: &'static str },
    /// Only the first argument that resembles a script is checked: a relative path with the extension of one
    /// (`.py`, `.js`, `.sh` and the like) that is not an option.
    #[error(
        "the argument {:?} looks like a file of the plugin, which is not there; paths begin at the \
         directory that the plugin runs in", Foreign::new(.argument)
    )]
    ArgumentNotThere { argument: &'a str },
    /// It has no slash.
    #[error("the command {:?} is not on this machine's PATH", Foreign::new(.command))]
    CommandNotOnPath { command: &'a str },
    /// It has no slash, and the plugin has a file of that name.
    #[error(
        "the command {:?} is looked up on PATH; to run the plugin's own file write \"./{}\"",
        Foreign::new(.command), Foreign::new(.command)
    )]
    CommandIsNoPath { command: &'a str },
    #[error(
        "the command {:?} is outside the archive, and must be there on every host",
        Foreign::new(.command)
    )]
    CommandOutside { command: &'a str },
    #[error(
        "the command {:?} is not executable; it is made so when unpacked", Foreign::new(.command)
    )]
    CommandMadeExecutable { command: &'a str },
}
