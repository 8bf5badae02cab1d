//! `counters!`: a struct of plain counts and the atomics behind it, defined by one table.

use std::sync::atomic::{AtomicU64, Ordering};

/// Defines a struct of atomics, one for each count.
macro_rules! live_counters {
    ($live:ident; $($field:ident,)+ $(; $part:ident: $part_live:ident)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct $live {
            $(pub(crate) $field: ::std::sync::atomic::AtomicU64,)+
            $(pub(crate) $part: ::std::sync::Arc<$part_live>,)?
        }
    };
}

/// Defines a struct of counts, and one of atomics with the same fields that takes a snapshot of itself. The
/// snapshot may be off by what happens meanwhile. After the counts may come those of a part, which has
/// [`live_counters!`] of its own.
macro_rules! counters {
    (
        $(#[$doc:meta])* $name:ident, $live:ident;
        $($(#[$field_doc:meta])* $field:ident,)+
        $(; $part:ident: $part_live:ident; $($(#[$part_doc:meta])* $part_field:ident,)+)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ::serde::Serialize)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)+
            $($($(#[$part_doc])* pub $part_field: u64,)+)?
        }

        $crate::counters::live_counters! { $live; $($field,)+ $(; $part: $part_live)? }

        impl $live {
            pub(crate) fn snapshot(&self) -> $name {
                let mut counts = $name::default();
                self.add_to(&mut counts);
                counts
            }

            /// Adds each count to that of the same name.
            pub(crate) fn add_to(&self, sum: &mut $name) {
                use ::std::sync::atomic::Ordering;
                // Destructured, so that none of the part's can be forgotten.
                $(let $part_live { $($part_field,)+ } = &*self.$part;)?
                $(sum.$field += self.$field.load(Ordering::Relaxed);)+
                $($(sum.$part_field += $part_field.load(Ordering::Relaxed);)+)?
            }
        }
    };
}

pub(crate) use {counters, live_counters};

/// Adds to a count, in no order with anything else.
pub(crate) fn count_by(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}
