//! `PackageWarning`: what the author of a package may not have meant.

use crate::text::Foreign;

/// What the author of a package may not have meant. It can be installed all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackageWarning {
    /// The manifest has a member that is not known here, and not for other tools: those begin with `$`,
    /// `_` or `x-`.
    #[error(
        "manifest.json: there is no field `{}`{}", Foreign::new(.member).limited_to(100),
        .meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
    )]
    UnknownMember {
        /// The member.
        member: String,
        /// What its name is like.
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
    /// A field of the manifest that people look at has nothing in it.
    #[error("manifest.json: field `{field}` is missing or empty")]
    EmptyField {
        /// The field.
        field: &'static str,
    },
    /// An argument names a script that is not there. Only the first argument that looks like one is
    /// checked: a relative path that ends as scripts do (`.py`, `.js`, `.sh` and the like) and is no
    /// option.
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
    /// The command has no slash, so it is not the file of that name that is there.
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
