//! `PackageWarning`: what the author of a package may have overlooked.

use crate::text::Foreign;

/// What the author of a package may have overlooked. It can be installed all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackageWarning {
    /// The manifest has a member that is neither known here nor meant for other tools: those begin with `$`,
    /// `_` or `x-`.
    #[error(
        "manifest.json: there is no field `{}`{}", Foreign::new(.member).limited_to(100),
        .meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
    )]
    UnknownMember {
        /// The member.
        member: String,
        /// A known member with a similar name.
        meant: Option<&'static str>,
    },
    /// The manifest names an event that Storyden does not have.
    #[error(
        "manifest.json: Storyden has no event {:?}; it comes only from a host that defines it",
        Foreign::new(.event).limited_to(100)
    )]
    UnknownEvent {
        /// The event.
        event: String,
    },
    /// A field of the manifest that is shown to people is empty.
    #[error("manifest.json: field `{field}` is missing or empty")]
    EmptyField {
        /// The field.
        field: &'static str,
    },
    /// An argument names a script that does not exist. Only the first argument that resembles one is
    /// checked: a relative path with the extension of a script (`.py`, `.js`, `.sh` and the like) that is
    /// not an option.
    #[error(
        "the argument {:?} looks like a file of the plugin, which is not there; paths begin at the \
         directory that the plugin runs in", Foreign::new(.argument)
    )]
    ArgumentNotThere {
        /// The argument.
        argument: String,
    },
    /// The command has no slash, and there is no such program on this machine.
    #[error("the command {:?} is not on this machine's PATH", Foreign::new(.command))]
    CommandNotOnPath {
        /// The command.
        command: String,
    },
    /// The command has no slash, so it does not mean the plugin's file of that name.
    #[error(
        "the command {:?} is looked up on PATH; to run the plugin's own file write \"./{}\"",
        Foreign::new(.command), Foreign::new(.command)
    )]
    CommandIsNoPath {
        /// The command.
        command: String,
    },
    /// The command leads out of the archive.
    #[error(
        "the command {:?} is outside the archive, and must be there on every host",
        Foreign::new(.command)
    )]
    CommandOutside {
        /// The command.
        command: String,
    },
    /// The command's file is not executable in the archive.
    #[error(
        "the command {:?} is not executable; it is made so when unpacked", Foreign::new(.command)
    )]
    CommandMadeExecutable {
        /// The command.
        command: String,
    },
}
