//! `settings!`: structs of plain settings, each defined by one table of fields and defaults.

use std::sync::Arc;

use crate::error::{Error, Result};

/// Defines a struct of plain settings with `Default` and, for each field, a setter of its name and with its
/// docs. Of a field that is `optional` the setter takes the value itself; one that is to be set `by_hand` has
/// its setter beside the table, if it has one.
macro_rules! settings {
    ($(#[$doc:meta])* pub struct $name:ident {
        $(
            $(#[$field_doc:meta])*
            $field:ident: $type:ty = $default:expr $(, $kind:ident $($value:ty)?)?;
        )+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub(crate) $field: $type,)+
        }

        impl Default for $name {
            // The attributes of a field may also be the feature that it belongs to.
            #[allow(unused_doc_comments)]
            fn default() -> Self {
                Self { $($(#[$field_doc])* $field: $default,)+ }
            }
        }

        impl $name {
            $(settings! { @setter $(#[$field_doc])* $field: $type $(, $kind $($value)?)? })+
        }
    };
    (@setter $(#[$doc:meta])* $field:ident: $type:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, value: $type) -> Self {
            self.$field = value;
            self
        }
    };
    (@setter $(#[$doc:meta])* $field:ident: $type:ty, optional $value:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, value: $value) -> Self {
            self.$field = Some(value);
            self
        }
    };
    (@setter $(#[$doc:meta])* $field:ident: $type:ty, by_hand) => {};
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
