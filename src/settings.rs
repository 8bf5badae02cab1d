//! `settings!`: structs of plain settings, each made from one table of fields, setters and defaults.
//! What the settings mean, and which values can work, is said where they are used.

use std::sync::Arc;

use crate::error::{Error, Result};

/// Makes a struct of plain settings with `Default` and a setter per field. `Default` and the setters
/// are how embedders make one: the struct is non-exhaustive, so that settings can be added.
///
/// A field without a setter's name gets none: setters are `const`, and where a value has to be dropped
/// (a list) that cannot be. Such a setter is written by hand.
macro_rules! settings {
    ($(#[$doc:meta])* pub struct $name:ident {
        $($(#[$field_doc:meta])* $field:ident $(, $setter:ident)?: $type:ty = $default:expr;)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl Default for $name {
            // What is said of a field may also be under which feature it is there.
            #[allow(unused_doc_comments)]
            fn default() -> Self {
                Self { $($(#[$field_doc])* $field: $default,)+ }
            }
        }

        impl $name {
            $($(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub const fn $setter(mut self, value: $type) -> Self {
                    self.$field = value;
                    self
                }
            )?)+
        }
    };
}

pub(crate) use settings;

/// Checks one setting.
///
/// # Errors
/// [`Error::Setting`] with this name and problem, unless the value can work.
pub(crate) fn require(
    can_work: bool,
    name: &'static str,
    problem: impl Into<Arc<str>>,
) -> Result<()> {
    if can_work {
        Ok(())
    } else {
        Err(Error::setting(name, problem))
    }
}
