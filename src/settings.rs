//! `settings!`: structs of plain settings, each defined by one table of fields, setters and defaults.

use std::sync::Arc;

use crate::error::{Error, Result};

/// Defines a struct of plain settings with `Default` and a setter per field. Embedders construct it with
/// these: the struct is non-exhaustive, so that settings can be added.
///
/// A field without a setter's name gets none. Setters are `const`, so one that drops a value, such as a
/// list, has to be written by hand.
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
            // The attributes of a field may also be the feature that it belongs to.
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
/// [`Error::Setting`] with this name and problem, unless the value is valid.
pub(crate) fn require(valid: bool, name: &'static str, problem: impl Into<Arc<str>>) -> Result<()> {
    if valid {
        Ok(())
    } else {
        Err(Error::setting(name, problem))
    }
}
